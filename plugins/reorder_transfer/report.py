"""The tables on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reorder_core.bootstrap import Interval
from reorder_transfer.matrix import Row

_SAID = {
    "scratch": "trained from fresh weights in the order",
    "evaluate": "a base trained in its own order, read in the order as it is",
    "finetune": "that base trained on in the order",
}


def print_matrix(rows: Sequence[Row], folder: Path, console: Console) -> None:
    """A table of each way of trying, what the brackets are, and where the rest is."""
    for mode in dict.fromkeys(row.mode for row in rows):
        console.print(_table(mode, [row for row in rows if row.mode == mode]))
    seeds = max(len(row.values) for row in rows)
    console.print(
        "to …: the difference to that order, in the score of an image; the same images and the same seeds are paired\n"
        "images: paired bootstrap 95 % over validation images; it knows nothing of other seeds\n"
        + (
            "seeds: Student's t 95 % over the paired differences of the seeds"
            if seeds > 1
            else "one seed: no interval over seeds, and a difference may be this seed's (--seeds 0,1,2)"
        ),
        style="dim",
        soft_wrap=True,
        highlight=False,
    )
    for to, score in dict.fromkeys((row.to, row.score) for row in rows if row.score != row.metric):
        console.print(f"{to}: the score of an image is {score}", style="dim", soft_wrap=True, highlight=False)
    console.print(f"figures, picture and runs: {folder}", highlight=False, soft_wrap=True)


def _table(mode: str, rows: Sequence[Row]) -> Table:
    table = Table(title=f"{mode}: {_SAID[mode]}", title_justify="left", box=None, pad_edge=False)
    for name in ("from", "to"):
        table.add_column(name, overflow="fold")
    for name in ("metric", "value", f"to {rows[0].against}", "images", "seeds"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        look = _look(row)
        table.add_row(
            Text(row.source),
            Text(row.to),
            row.metric,
            show(row.value),
            Text(_difference(row), style=look),
            Text(brackets(row.images), style=look),
            Text(brackets(row.seeds), style=look),
        )
    return table


def _difference(row: Row) -> str:
    if row.images is None:
        return "" if row.source == row.against else "same order"
    return show(row.images.mean, sign=True)


def _look(row: Row) -> str:
    """Coloured where every interval that there is leaves out 0."""
    intervals = [each for each in (row.images, row.seeds) if each is not None]
    if not intervals or not all(each.excludes_zero for each in intervals):
        return "dim"
    return "green" if row.strength > 0 else "red"


def show(value: float, sign: bool = False) -> str:
    """Four digits after the point below 10, fewer above."""
    digits = 4 if abs(value) < 10 else 2
    return f"{value:{'+' if sign else ''}.{digits}f}"


def brackets(interval: Interval | None) -> str:
    """`[-0.0010, +0.0250]`, or nothing."""
    return "" if interval is None else f"[{show(interval.low, sign=True)}, {show(interval.high, sign=True)}]"
