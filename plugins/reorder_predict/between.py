"""Between orders: which statistic goes with which model's accuracy, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from reorder_core.rank_correlation import spearman
from reorder_predict.correlation import Correlation, correlate, holm
from reorder_predict.statistics import Columns
from reorder_predict.table import Cell, Table

ALPHA = 0.05


@dataclass(frozen=True)
class Association:
    """One statistic against one model's accuracy. corrected: p after Holm over all tests of the table.

    doubts: why the evidence is too thin; none where the statistic predicts. twin: an earlier statistic that ranks these
    orders the same, or (turned) the other way round: both are one test, which the earlier one's row counts, so that
    this row has no corrected p (NaN) and no doubts of its own.
    """

    model: str
    statistic: str
    found: Correlation
    corrected: float
    doubts: tuple[str, ...]
    twin: str = ""
    turned: bool = False

    @property
    def verdict(self) -> str:
        if self.twin:
            return f"same ranks as {self.twin}{', reversed' if self.turned else ''}"
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
            "p_holm": None if self.twin else self.corrected,
            "predicts": None if self.twin else not self.doubts,
            "same_ranks_as": self.twin or None,
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
    """Every model with every statistic that at least three of its orders have; strongest first in each model.

    A statistic that ranks a model's orders as an earlier one does is shown and not tested (`Association.twin`).
    """
    found: list[tuple[str, str, Correlation]] = []
    twins: list[tuple[str, bool]] = []
    for model in table.models:
        known: list[tuple[str, tuple[str, ...], Sequence[float]]] = []
        for name, column in columns.items():
            pairs = points(table.of(model), column)
            x_M, y_M = [value for _, value in pairs], [cell.good for cell, _ in pairs]
            if len(pairs) < 3 or len({*x_M}) == 1 or len({*y_M}) == 1:
                notes.append(
                    f"{name} and {model}: {len(pairs)} orders with both, too few, or one side is the same in all"
                )
            else:
                found.append((model, name, correlate(x_M, y_M, resamples, np.random.default_rng(seed))))
                orders = tuple(cell.order.name for cell, _ in pairs)
                twins.append(_twin(orders, x_M, known))
                if not twins[-1][0]:
                    known.append((name, orders, x_M))
            tick()
    tests = [each.p for (_, _, each), twin in zip(found, twins, strict=True) if not twin[0]]
    corrected = iter(holm(tests))
    rows = []
    for (model, name, each), (twin, turned) in zip(found, twins, strict=True):
        p = nan if twin else next(corrected)
        doubts = () if twin else _doubts(each, p, len(tests), least)
        rows.append(Association(model, name, each, p, doubts, twin, turned))
    # a twin has the same figures up to rounding, and follows the statistic that it repeats
    return sorted(rows, key=lambda row: (table.models.index(row.model), row.found.p, -_rounded(row)))


def _rounded(row: Association) -> float:
    return round(abs(row.found.spearman.value), 9)


def _twin(
    orders: tuple[str, ...], x_M: Sequence[float], known: Sequence[tuple[str, tuple[str, ...], Sequence[float]]]
) -> tuple[str, bool]:
    """The one of `known` with which its rank correlation is ±1 over the same orders, and whether -1; else no name."""
    for name, others, other_M in known:
        if orders == others:
            rho = float(spearman(np.array(x_M), np.array(other_M)))
            if abs(rho) > 1 - 1e-9:
                return name, rho < 0
    return "", False


def _doubts(found: Correlation, corrected: float, tests: int, least: int) -> tuple[str, ...]:
    doubts = []
    if found.pairs < least:
        doubts.append(f"{found.pairs} orders")
    if not found.spearman.excludes_zero:
        doubts.append("interval includes 0")
    if corrected >= ALPHA:
        doubts.append(f"p {found.p:.2g}" if tests == 1 else f"p {corrected:.2g} after {tests} tests")
    return tuple(doubts)
