"""`reorder predict RUNS… --prior FILE…`: which statistic of an order predicts the accuracy of which model.

Exit codes: 0; 2 for whatever is found before anything was computed; 1 for what failed later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("predict")
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...", type=click.Path(path_type=Path))
@click.option(
    "--prior",
    "priors",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A table that `reorder prior --write` saved, of the same data set and grid; may be repeated.",
)
@click.option(
    "--least",
    type=click.IntRange(3),
    default=8,
    show_default=True,
    help="With fewer orders than this the evidence is called too thin, whatever it says.",
)
@click.option(
    "--resamples", type=click.IntRange(100), default=2000, show_default=True, help="Of the bootstrap intervals."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of bootstrap and permutations.")
@click.option(
    "--no-images", is_flag=True, help="Leave out the question within the data set, which reads its validation images."
)
@click.option("--fixed-only", is_flag=True, help="Leave out learned orders, whose accuracy carries the learning too.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Images read at once.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The folder to write into.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON on stdout, in place of tables.")
def command(runs: tuple[Path, ...], priors: tuple[Path, ...], out: Path | None, as_json: bool, **asked: Any) -> int:
    """Which statistic of an order predicts the accuracy of which model.

    RUNS are folders of finished runs on one data set, with fixed or learned orders; the controls inside them count as
    runs, and seeds of the same model and order are averaged.

    Between orders: rank correlations of each statistic with accuracy, their intervals and corrected p-values, and a
    regression that has to predict a model it has not seen. Between images of one order: are those whose consecutive
    patches are more alike classified better or worse? It says where the evidence is too thin. Tables on the screen;
    predict.json and pictures in a folder.
    """
    from reorder_predict.study import run_study

    return run_study(runs, priors, out, as_json, **asked)
