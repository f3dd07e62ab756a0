"""The tables on the screen: one for each problem, size and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reorder_policy_bench.contenders import LeftOut
from reorder_policy_bench.summary import LEVELS, Middle, end, reached

if TYPE_CHECKING:
    from reorder_policy_bench.row import Row


def print_rows(rows: Sequence[Row], left: Sequence[LeftOut], out: Path | None, console: Console) -> None:
    """Every table, the soonest first; below it what its columns mean, and who is not in it and why."""
    for (problem, size, noise), group in groupby(
        rows, key=lambda row: (row.conditions.problem, row.conditions.size, row.conditions.noise)
    ):
        console.print()
        console.print(_table(f"{problem}, {size} patches, noise {noise:g}", [*group]))
    if rows:
        console.print()
        console.print(
            "to 80 %, to 95 %: samples (evaluations of the reward) until the best order is there and stays there, and\n"
            "the policy's own seconds; medians over seeds, below them 95 % bootstrap intervals; –: not reached;\n"
            "1/3: by one seed of three. end: mean over seeds of the reward of the best order after all steps (0\n"
            "random, 1 optimum). MiB: highest memory of the row above what there was before it",
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
    """Two lines a row: values over the seeds, and below them their intervals."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("policy", overflow="fold", min_width=16)
    for level in LEVELS:
        table.add_column(f"to {100 * level:.0f} %", justify="right", no_wrap=True)
        table.add_column("s", justify="right", no_wrap=True)
    for name in ("end", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(rows, key=_place):
        label = escape(row.contender.label)
        if not row.trials:
            table.add_row(label, "failed", style="red")
            continue
        cells = [f"{label}\n[dim]{_orders(row)}[/]"]
        for level in LEVELS:
            found = reached(row.trials, level)
            of = "" if found.seeds in (0, len(row.trials)) else f"{found.seeds}/{len(row.trials)}: "
            cells += [_two_lines(found.samples, _thousands, of), _two_lines(found.seconds, _digits)]
        peak = "" if row.peak_mebibytes is None else f"{row.peak_mebibytes:,.0f}"
        table.add_row(*cells, _two_lines(end(row.trials), "{:.3f}".format), peak)
    return table


def _orders(row: Row) -> str:
    first = row.trials[0]
    rows = first.samples_a_step // row.conditions.batch
    return f"{first.orders} order{'s' * (first.orders != 1)}" + (f", {rows} an image" if rows > 1 else "")


def _two_lines(middle: Middle, form: Callable[[float], str], before: str = "") -> str:
    value, low, high = ("–" if each is None else form(each) for each in (middle.value, middle.low, middle.high))
    return f"{before}{value}" if value == low == high else f"{before}{value}\n[dim]{low}…{high}[/]"


def _thousands(samples: float) -> str:
    return f"{samples:.0f}" if samples < 1000 else f"{samples / 1000:.1f}k"


def _digits(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.2g}"


def _place(row: Row) -> tuple[float, float]:
    """The soonest to the first level first, then the best at the end; failures last."""
    if not row.trials:
        return math.inf, math.inf
    value = reached(row.trials, LEVELS[0]).samples.value
    return math.inf if value is None else value, -(end(row.trials).value or 0.0)
