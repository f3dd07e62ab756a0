"""`reorder sensitivity TARGET…`: how a model reacts to the order of its patches, and what it forgets.

Exit codes: 0; 2 for whatever is found before anything was measured; 1 for what failed later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reorder_core import UsageError


def _names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


@click.command("sensitivity")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", type=click.Path(path_type=Path))
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of a recipe.")
@click.option("--orderings", callback=_names, metavar="A,B,…", help="The named orders; by default every curve.")
@click.option("--random", "randoms", type=click.IntRange(1), default=8, show_default=True, help="Random orders.")
@click.option("--swaps", type=click.IntRange(1), default=8, show_default=True, help="Orders after one adjacent swap.")
@click.option("--images", type=click.IntRange(2), default=512, show_default=True, help="Validation images to read.")
@click.option(
    "--slots",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="Slots to occlude, evenly spread; 0: influence by gradient only.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random orders and swaps.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images read at once.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True, help="Where."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The folder to write into.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON on stdout, in place of tables.")
def command(
    targets: tuple[Path, ...], overrides: tuple[str, ...], out: Path | None, as_json: bool, **asked: Any
) -> int:
    """How much a model reacts to the order of its patches, and what it forgets.

    TARGET is the folder of a run (its trained weights) or a recipe (fresh weights); several are set side by side.

    For every named order, for random orders and for the own order with two neighbours swapped: how far the output
    moves, and what becomes of the accuracy. Then, over random orders, the influence of each slot on the prediction
    (by gradient and by occlusion), drawn as a retention curve. Tables on the screen; sensitivity.json, orders.png and
    retention.png in a folder.
    """
    for target in targets:
        if not target.exists():
            raise UsageError(f"{target}: there is no such recipe or run")
    from reorder_sensitivity.study import run_study

    return run_study(targets, overrides, out, as_json, **asked)
