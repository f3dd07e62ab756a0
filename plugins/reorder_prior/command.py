"""`reorder prior RECIPE | --data FOLDER --patch P`: which order of the patches compresses, beside other measures.

Exit codes: 0; 2 for whatever is found before anything was measured; 1 for what failed later; 130 after Ctrl-C, with
nothing written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from reorder_core import ReorderError, UsageError, options


def _distances(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[int, ...]:
    """`--distance 2 --distance 4,8`, ascending, each once, with the neighbours, which are counted anyway."""
    words = [word.strip() for text in given for word in text.split(",")]
    wrong = next((word for word in words if not word.isdecimal() or int(word) < 1), None)
    if wrong is not None:
        raise UsageError(f"--distance {wrong}: write slots as whole numbers from 1 on, for example --distance 2,4")
    return tuple(sorted({1, *map(int, words)}))


@click.command("prior")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe."
)
@click.option(
    "--split", type=click.Choice(["train", "validation"]), default="train", show_default=True, help="Of a recipe."
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="A folder of images, nested or not, in place of a recipe."
)
@click.option("--patch", type=click.IntRange(1), help="Side of a patch in pixels, with --data.")
@click.option(
    "--image-size",
    callback=options.image_size,
    metavar="S|HxW",
    help="With --data: resize to cover this size, crop at the centre; by default images keep theirs, which must agree.",
)
@click.option(
    "--orderings",
    metavar="A,B,…",
    help="Names, or {name: …, settings}; by default all that need no settings and do not learn, and 3 random orders.",
)
@click.option(
    "--tokenizer", default="uniform", show_default=True, metavar="NAME|YAML", help="What makes codes of patches."
)
@click.option("--compressor", default="lzma", show_default=True, metavar="NAME|YAML", help="What compresses the codes.")
@click.option(
    "--ngram",
    "ngrams",
    multiple=True,
    type=click.Choice(["1", "2"]),
    help="Codes a symbol; given twice, both are measured and the first ranks. By default 1.",
)
@click.option(
    "--distance",
    "distances",
    multiple=True,
    callback=_distances,
    metavar="D,…",
    help="Slots apart at which codes' mutual information is measured, beside 1; repeatable, or a list.",
)
@click.option(
    "--together",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Images compressed as one stream; 1: each alone.",
)
@click.option("--images", type=click.IntRange(1), help="How many images, drawn by the seed; by default all.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the sample and the bootstrap.")
@click.option(
    "--unreadable",
    type=click.Choice(["skip", "stop"]),
    default="skip",
    show_default=True,
    help="An image that cannot be read: left out and counted, or the end.",
)
@click.option("--workers", type=click.IntRange(1), help="Threads that compress; by default one a core.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON on stdout, in place of the table.")
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), help="A file for the ranking, as JSON.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="A folder for prior.json and prior.png.")
def command(
    recipe: Path | None,
    overrides: tuple[str, ...],
    data: Path | None,
    patch: int | None,
    image_size: tuple[int, int] | None,
    ngrams: tuple[str, ...],
    distances: tuple[int, ...],
    write: Path | None,
    **asked: Any,
) -> int:
    """Rank orderings by how well the patches compress when read in them.

    RECIPE gives images, grid and patch, or --data and --patch do. Every image is cut into patches, each patch becomes
    a code, the codes are put in each order, packed and compressed. The table shows the size of an image in each order,
    with a bootstrap interval over images, next to measures that need no compressor: conditional entropy, mutual
    information, variation and distance along the sequence.

    Under `accelerate launch` or `torchrun` every process measures its share of the images; the first one reports.
    """
    if (recipe is None) == (data is None):
        raise UsageError("name what to measure: a recipe, or a folder of images with --data and --patch")
    if data is not None and patch is None:
        raise UsageError("--data needs --patch, the side of a patch in pixels")
    if data is not None and overrides:
        raise UsageError("-o changes a recipe, and --data has none: use --patch and --image-size")
    if recipe is not None and (patch is not None or image_size is not None):
        raise UsageError(
            "--patch and --image-size go with --data: a recipe says them itself, change it with -o patch.size=…"
        )
    if write is not None and not write.absolute().parent.is_dir():
        raise UsageError(f"--write {write}: there is no folder {write.absolute().parent}: make it first")
    from reorder_prior.study import Wanted, run_study

    lengths = tuple(map(int, dict.fromkeys(ngrams or ("1",))))
    wanted = Wanted(recipe, overrides, data, patch, image_size, lengths, distances, write)
    try:
        return run_study(wanted, **asked)
    except ReorderError as error:
        if os.environ.get("RANK", "0") == "0" or error.exit_code != 2:
            raise
        return error.exit_code  # every process found the same mistake: the first one says it
