"""All that the command does: read, correlate, look at the images, write down, draw, show."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from reorder_core import UsageError, output_folder, write_json
from reorder_core.bars import bars
from reorder_core.opened import OpenedData, open_data
from reorder_predict.between import Association, associations
from reorder_predict.prior import read_prior
from reorder_predict.report import print_findings, summary
from reorder_predict.runs import read_runs
from reorder_predict.statistics import Columns, all_statistics
from reorder_predict.table import Table, build_table
from reorder_predict.transfer import Transfer, by_chance, transfers
from reorder_predict.variation import measure
from reorder_predict.within import Likeness, likeness


@dataclass(frozen=True)
class Findings:
    """What was found. columns: statistic -> order -> value. images: None where the question was left out. chance: of
    the best leave-one-model-out regression, how often shuffled statistics do as well.
    """

    table: Table
    columns: Columns
    between: list[Association]
    transfer: list[Transfer]
    images: list[Likeness] | None
    notes: list[str]
    chance: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `predict.json` has them."""
        table = self.table
        cells = [
            {
                "model": cell.model,
                "order": cell.order.name,
                "learned": cell.order.learned,
                "seeds": [run.seed for run in cell.runs],
                table.metric: cell.value,
                "statistics": {name: column.get(cell.order.name) for name, column in self.columns.items()},
                "runs": [str(run.folder) for run in cell.runs],
            }
            for cell in table.cells
        ]
        return {
            "data": table.data,
            "grid": [table.grid.rows, table.grid.columns],
            "metric": table.metric,
            "table": cells,
            "between_orders": [row.as_json() for row in self.between],
            "leave_one_model_out": [each.as_json() for each in self.transfer],
            "leave_one_model_out_by_chance": self.chance,
            "within_images": None if self.images is None else [row.as_json() for row in self.images],
            "summary": summary(self),
            "notes": self.notes,
        }


def run_study(
    folders: Sequence[Path],
    priors: Sequence[Path],
    out: Path | None,
    as_json: bool,
    *,
    least: int,
    resamples: int,
    seed: int,
    no_images: bool,
    fixed_only: bool,
    batch_size: int,
) -> int:
    """Answer both questions and write the results; returns the exit code."""
    runs, notes = read_runs(folders, fixed_only)
    table = build_table(runs, notes)
    tables = [read_prior(path, table, runs[0].patch) for path in dict.fromkeys(priors)]
    _note_learned(table, notes)
    columns = all_statistics(table, tables, notes)
    opened = None if no_images else _open_data(table, notes)
    console = Console(stderr=as_json)
    with bars(console) as progress:
        bar = progress.add_task("between orders", total=len(table.models) * len(columns))
        between = associations(table, columns, least, resamples, seed, notes, lambda: progress.advance(bar))
        images = None
        if opened is not None:
            images = _within(opened, table, resamples, seed, batch_size, notes, progress)
    told = transfers(table, columns)
    chance = by_chance(table, columns, told, seed)
    findings = Findings(table, columns, between, told, images, [*dict.fromkeys(notes)], chance)
    folder = out or Path("runs") / "predict" / re.sub(r"[^\w.+-]", "_", table.data)
    _write(findings, folder)
    if as_json:
        print(json.dumps(findings.as_json(), indent=2))
    else:
        print_findings(findings, folder, console)
    return 0


def _note_learned(table: Table, notes: list[str]) -> None:
    learned = sum(order.learned for order in table.orders)
    if 0 < learned < len(table.orders):
        notes.append(
            f"{learned} of {len(table.orders)} orders were learned: their accuracy also carries how they were learned, "
            f"and --fixed-only leaves them out"
        )
    known: dict[bytes, str] = {}
    for order in table.orders:
        same = known.setdefault(order.orders_KN.tobytes(), order.name)
        if same != order.name:
            notes.append(f"{order.name} is the permutation of {same}: the two count as orders, and are not independent")


def _open_data(table: Table, notes: list[str]) -> OpenedData | None:
    """The data set of the runs, opened by one of their recipes."""
    if table.grid.frames > 1:
        notes.append("the question within the data set is asked of images, not of films, and was left out")
        return None
    run = table.cells[0].runs[0]
    opened = open_data(run.folder)
    images = len(opened.dataset.validation)
    if images != run.score_S.size:
        raise UsageError(
            f"the data set has {images} validation images now and the runs have scores of {run.score_S.size}: bring "
            f"the images back that they were validated on, or leave this question out with --no-images"
        )
    return opened


def _within(
    opened: OpenedData,
    table: Table,
    resamples: int,
    seed: int,
    batch_size: int,
    notes: list[str],
    progress: Progress,
) -> list[Likeness]:
    count = len(opened.dataset.validation)
    reading = progress.add_task("validation images", total=count)
    permutations = [order.orders_KN for order in table.orders]
    variation = measure(opened, permutations, count, batch_size, lambda images: progress.advance(reading, images))
    bar = progress.add_task("within the data set", total=len(table.cells))
    names = [order.name for order in table.orders]
    return likeness(table.cells, names, variation, resamples, seed, notes, lambda: progress.advance(bar))


def _write(findings: Findings, folder: Path) -> None:
    from reorder_predict.picture import draw_images, draw_model

    with output_folder(folder):
        write_json(folder / "predict.json", findings.as_json())
        for number, model in enumerate(findings.table.models):
            name = re.sub(r"[^\w.+-]+", "_", model).strip("_")
            draw_model(findings, model, folder / f"orders_{number + 1}_{name[:60]}.png")
        if findings.images:
            draw_images(findings.images, folder / "images.png")
