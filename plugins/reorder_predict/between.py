"""Between orders: which statistic goes with which model's accuracy, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reorder_predict.correlation import Correlation, correlate, holm
from reorder_predict.statistics import Columns
from reorder_predict.table import Cell, Table

ALPHA = 0.05


@dataclass(frozen=True)
class Association:
    """One statistic against one model's accuracy. corrected: p after Holm over all tests of the table.

    doubts: why the evidence is too thin; none where the statistic predicts.
    """

    model: str
    statistic: str
    found: Correlation
    corrected: float
    doubts: tuple[str, ...]

    @property
    def verdict(self) -> str:
        if self.doubts:
            return f"too thin: {', '.join(self.doubts)}"
        return "predicts: more is better" if self.found.spearman.value > 0 else "predicts: less is better"

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "statistic": self.statistic,
            "pairs": self.found.pairs,
            "spearman": self.found.spearman.as_json(),
            "kendall": self.found.kendall.as_json(),
            "p": self.found.p,
            "exact": self.found.exact,
            "p_holm": self.corrected,
            "predicts": not self.doubts,
            "verdict": self.verdict,
        }


def points(cells: Sequence[Cell], column: dict[str, float]) -> list[tuple[Cell, float]]:
    """The cells whose order has this statistic, with it."""
    return [(cell, column[cell.order.name]) for cell in cells if cell.order.name in column]


def associations(
    table: Table,
    columns: Columns,
    least: int,
    resamples: int,
    seed: int,
    notes: list[str],
    tick: Callable[[], None] = lambda: None,
) -> list[Association]:
    """Every model with every statistic that at least three of its orders have; strongest first in each model."""
    found: list[tuple[str, str, Correlation]] = []
    for model in table.models:
        for name, column in columns.items():
            pairs = points(table.of(model), column)
            x_M, y_M = [value for _, value in pairs], [cell.good for cell, _ in pairs]
            if len(pairs) < 3 or len({*x_M}) == 1 or len({*y_M}) == 1:
                notes.append(
                    f"{name} and {model}: {len(pairs)} orders with both, too few, or one side is the same in all"
                )
            else:
                found.append((model, name, correlate(x_M, y_M, resamples, np.random.default_rng(seed))))
            tick()
    corrected = holm([each.p for _, _, each in found])
    rows = [
        Association(model, name, each, p, _doubts(each, p, len(found), least))
        for (model, name, each), p in zip(found, corrected, strict=True)
    ]
    return sorted(rows, key=lambda row: (table.models.index(row.model), row.found.p, -abs(row.found.spearman.value)))


def _doubts(found: Correlation, corrected: float, tests: int, least: int) -> tuple[str, ...]:
    doubts = []
    if found.pairs < least:
        doubts.append(f"{found.pairs} orders")
    if not found.spearman.excludes_zero:
        doubts.append("interval includes 0")
    if corrected >= ALPHA:
        doubts.append(f"p {found.p:.2g}" if tests == 1 else f"p {corrected:.2g} after {tests} tests")
    return tuple(doubts)
