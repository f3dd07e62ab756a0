"""The tables on the screen: one for each problem, size and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from reorder_policy_bench.contenders import LeftOut
from reorder_policy_bench.summary import LEVELS, Middle, Reached, end, reached

if TYPE_CHECKING:
    from reorder_policy_bench.study import Row


def print_rows(rows: Sequence[Row], left: Sequence[LeftOut], out: Path | None, console: Console) -> None:
    """Every table, the soonest first; below it what its columns mean, and who is not in it and why."""
    for (problem, size, noise), group in groupby(
        rows, key=lambda row: (row.conditions.problem, row.conditions.size, row.conditions.noise)
    ):
        console.print(_table(f"{problem}, {size} patches, noise {noise:g}", [*group]))
    if rows:
        console.print(
            "samples: evaluations of the reward until the best order is at 80 % or 95 % of the optimum and stays "
            "there; median over seeds\n"
            "brackets: 95 % bootstrap interval over seeds; –: not reached by that many seeds. end: reward of the best "
            "order after all steps,\n"
            "0: mean over random orders, 1: optimum. seconds: the policy's own. MiB: highest memory of a row above "
            "that before it",
            style="dim",
            soft_wrap=True,
        )
    for row in rows:
        if row.reason:
            where = f"{row.conditions.problem}, {row.conditions.size} patches, noise {row.conditions.noise:g}"
            console.print(f"{row.contender.label} ({where}): {row.reason}", highlight=False, markup=False)
    for each in left:
        console.print(f"left out: {each.name}: {each.reason}", highlight=False, markup=False)
    if out is not None and rows:
        console.print(f"figures, curves and picture: {out}", highlight=False, markup=False, soft_wrap=True)


def _table(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("policy", overflow="fold")
    table.add_column("orders", justify="right")
    for level in LEVELS:
        for name in (f"samples to {100 * level:.0f} %", "seeds", "s"):
            table.add_column(name, justify="right")
    for name in ("end", "s in all", "MiB"):
        table.add_column(name, justify="right")
    for row in sorted(rows, key=_place):
        if not row.trials:
            table.add_row(row.contender.label, "", "failed", style="red")
            continue
        cells = [row.contender.label, str(row.trials[0].orders)]
        for level in LEVELS:
            cells += _level_cells(reached(row.trials, level), len(row.trials))
        seconds = sum(trial.looks[-1].seconds for trial in row.trials) / len(row.trials)
        peak = "" if row.peak_mebibytes is None else f"{row.peak_mebibytes:,.0f}"
        table.add_row(*cells, _shown(end(row.trials), "{:.3f}"), f"{seconds:.1f}", peak)
    return table


def _level_cells(found: Reached, seeds: int) -> list[str]:
    seconds = "–" if found.seconds.value is None else f"{found.seconds.value:.2f}"
    return [_shown(found.samples, "{:,.0f}"), f"{found.seeds}/{seeds}", seconds]


def _shown(middle: Middle, form: str) -> str:
    value, low, high = ("–" if each is None else form.format(each) for each in (middle.value, middle.low, middle.high))
    return value if value == low == high else f"{value} \\[{low}, {high}]"


def _place(row: Row) -> tuple[float, float]:
    """The soonest to the first level first, then the best at the end; failures last."""
    if not row.trials:
        return math.inf, math.inf
    value = reached(row.trials, LEVELS[0]).samples.value
    return math.inf if value is None else value, -(end(row.trials).value or 0.0)
