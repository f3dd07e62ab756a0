"""`reorder tokenizer train`: learn the codes of patches from images.

Exit codes: 0; 2 for whatever is found before anything was learned; 1 for what failed later; 130 after Ctrl-C.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reorder_core import UsageError, options, written_aside


@click.group("tokenizer")
def command() -> None:
    """The codes that patches become."""


@command.command("train")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option("--data", type=click.Path(path_type=Path), help="A folder of images, nested or not, not a recipe.")
@click.option("--patch", type=click.IntRange(1), help="Side of a patch in pixels; a recipe has its own.")
@click.option(
    "--kind", type=click.Choice(["vqvae", "kmeans"]), default="vqvae", show_default=True, help="What is trained."
)
@click.option("--codes", type=click.IntRange(2, 65536), help="Codes of the codebook; by default 512.")
@click.option("--epochs", type=click.IntRange(1), help="How often each image is read; by default 20, k-means 5.")
@click.option(
    "-s", "--setting", "chosen", multiple=True, metavar="KEY=VALUE", help="Any other setting of the tokenizer."
)
@click.option(
    "--image-size",
    callback=options.image_size,
    metavar="S|HxW",
    help="With --data: cover this size, crop at the centre.",
)
@click.option("--images", type=click.IntRange(2), help="Learn from so many images, evenly spread; by default all.")
@click.option(
    "--unreadable",
    type=click.Choice(["skip", "stop"]),
    default="skip",
    show_default=True,
    help="An image that cannot be read: left out and counted, or the end.",
)
@click.option("--seed", type=click.IntRange(0), help="Of weights, codes and batches; a recipe's own, else 0.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="FILE.safetensors.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON on stdout, in place of the table.")
def train(
    recipe: Path | None,
    overrides: tuple[str, ...],
    data: Path | None,
    patch: int | None,
    image_size: tuple[int, int] | None,
    out: Path,
    **asked: Any,
) -> int:
    """Train a tokenizer on your own images.

    RECIPE gives images and patch size, or --data and --patch do. The report says how many codes are used, their
    perplexity, and the PSNR of reconstructions of images that took no part (the validation images of a recipe, else
    one image in twenty). Next to FILE.safetensors stands FILE.png: originals above reconstructions, and the codebook.

    `reorder prior … --tokenizer '{name: vqvae, path: FILE.safetensors}'` uses it.
    """
    if (recipe is None) == (data is None):
        raise UsageError("name what to learn from: a recipe, or a folder of images with --data and --patch")
    if data is not None and patch is None:
        raise UsageError("--data needs --patch, the side of a patch in pixels")
    if data is not None and overrides:
        raise UsageError("-o changes a recipe, and --data has none: use --patch, --image-size and --setting")
    if recipe is not None and image_size is not None:
        raise UsageError("--image-size goes with --data: a recipe says the size of its images itself")
    if out.suffix != ".safetensors":
        raise UsageError(
            f"--out {out}: the file is in the safetensors format; call it {out.with_suffix('.safetensors')}"
        )
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.absolute().parent}: make it first")
    picture = out.with_suffix(".png")
    if picture.exists() and not out.exists():
        raise UsageError(f"--out {out}: the picture beside it would replace {picture}: choose another name")
    try:  # before hours of training rather than after them
        with written_aside(out.with_name(f"probe-{out.name}")) as aside:
            aside.touch()
        out.with_name(f"probe-{out.name}").unlink()
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror}): choose another place") from error
    from reorder_tokenizers.study import Wanted, run_training

    return run_training(Wanted(recipe, overrides, data, patch, image_size), out=out, **asked)
