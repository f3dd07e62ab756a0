"""`reorder transfer RUN… --to RECIPE…`: does an order learned elsewhere help here?

Exit codes: 0; 2 for whatever is found before anything was trained; 1 for what failed later; 130 after Ctrl-C, with
what was finished kept: the same command goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from reorder_core import UsageError

MODES = ("evaluate", "finetune", "scratch")


def _names(_: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if not found:
        raise UsageError(f"{option.opts[-1]} names nothing: write names with commas between them")
    return found


def _modes(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    found = _names(context, option, value)
    for mode in found:
        if mode not in MODES:
            raise UsageError(f"--mode {mode}: there is {', '.join(MODES)}")
    return tuple(mode for mode in MODES if mode in found)


def _seeds(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    words = [word.strip() for word in value.split(",")]
    if wrong := next((word for word in words if not (word.isascii() and word.isdecimal() and int(word) < 2**31)), None):
        raise UsageError(f"--seeds {wrong}: write whole numbers from 0 on, for example --seeds 0,1,2")
    if "" in words:
        raise UsageError("--seeds leaves one out between commas: write --seeds 0,1,2")
    return tuple(dict.fromkeys(map(int, words)))


@click.command("transfer")
@click.argument("runs", nargs=-1, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--to", "recipes", multiple=True, metavar="RECIPE", type=click.Path(path_type=Path), help="Repeatable.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of RECIPEs.")
@click.option(
    "--mode",
    "modes",
    callback=_modes,
    default="scratch",
    show_default=True,
    metavar="A,B,…",
    help="evaluate: a trained base reads in the order; finetune: it is trained on in it; scratch: trained in it.",
)
@click.option(
    "--orders",
    callback=_names,
    default="row_major",
    show_default=True,
    metavar="A,B,…",
    help="Fixed orderings beside; differences from scratch are taken to the first.",
)
@click.option("--seeds", callback=_seeds, metavar="0,1,…", help="Of the trainings; by default each recipe's own.")
@click.option("--epochs", type=click.IntRange(1), help="Of finetune; by default a quarter of the recipe's, rounded up.")
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="A finished run of the one RECIPE to evaluate and finetune, in place of a base that is trained for it; "
    "repeatable, one a seed.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True, help="Where."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The folder to work in and go on in.")
@click.option("--json", "as_json", is_flag=True, help="The matrix as JSON on stdout, in place of tables.")
def command(
    runs: Sequence[Path],
    recipes: Sequence[Path],
    overrides: tuple[str, ...],
    modes: tuple[str, ...],
    orders: tuple[str, ...],
    seeds: tuple[int, ...] | None,
    epochs: int | None,
    bases: tuple[Path, ...],
    device: str,
    out: Path | None,
    as_json: bool,
) -> int:
    """Does an order learned for one task, model, data set or grid help another?

    RUNs are folders of finished runs (a control's too), or saved order.json files; RECIPEs are where their orders are
    tried, their own policy and controls taken away. An order is carried to the grid of the recipe: a place keeps its
    share of height and width, and so its turn.

    The matrix from → to with paired differences and their intervals, over validation images and over seeds; tables on
    the screen; transfer.json, transfer.png and every run in a folder. Ctrl-C keeps what is finished, and the same
    command goes on.
    """
    # `--to a.yaml b.yaml` is read as --to a.yaml and an argument: a recipe is never a source
    recipes = [*recipes, *(path for path in runs if path.suffix in (".yaml", ".yml"))]
    runs = [path for path in runs if path not in recipes]
    if not runs:
        raise UsageError("name what to carry: folders of finished runs, or order.json files")
    if not recipes:
        raise UsageError("name where to carry it: --to RECIPE")
    if modes == ("scratch",) and (bases or epochs is not None):
        option = "--base" if bases else "--epochs"
        raise UsageError(f"{option} is of a base that is trained on: add --mode {'evaluate,' * bool(bases)}finetune")
    if epochs is not None and "finetune" not in modes:
        raise UsageError("--epochs is of finetune, which --mode leaves out: add it, or leave --epochs out")
    if bases and len(recipes) > 1:
        raise UsageError(f"--base is of one recipe, and --to names {len(recipes)}: give one at a time")
    if bases and seeds is not None:
        raise UsageError("the seeds are those of the bases: leave --seeds out, or repeat --base for more of them")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("transfer trains its runs one after the other in one process: start it without a launcher")
    from reorder_core.running import wait_politely

    wait_politely()
    from reorder_transfer.study import Wanted, run_study

    wanted = Wanted(tuple(runs), tuple(recipes), overrides, modes, orders, seeds, epochs, bases, device)
    return run_study(wanted, out, as_json)
