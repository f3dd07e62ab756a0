"""Leave one model out: a regression from the orders' statistics has to predict a model that it has not seen.

M pairs of a model and an order, F statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core.rank_correlation import spearman
from reorder_predict.between import points
from reorder_predict.statistics import Columns
from reorder_predict.table import Cell, Table

ALL = "all statistics"
ELSEWHERE = "the order's mean in the other models"
MEAN = "mean"
_SHUFFLES = 199
_RIDGE = 1.0  # penalty on standardised statistics, where several are fitted to few orders


@dataclass(frozen=True)
class Guess:
    """How well one model was predicted from the others. rank: Spearman's rho; NaN where all guesses are the same."""

    model: str
    orders: int
    r2: float
    rank: float


@dataclass(frozen=True)
class Transfer:
    """One regression, or a baseline, over all models left out in turn. r2: 1 - squared error / that of `mean`."""

    predictor: str
    guesses: tuple[Guess, ...]
    r2: float

    def as_json(self) -> dict[str, Any]:
        rows = [
            {
                "model": each.model,
                "orders": each.orders,
                "r2": each.r2,
                "rank": None if np.isnan(each.rank) else each.rank,
            }
            for each in self.guesses
        ]
        return {"predictor": self.predictor, "r2": self.r2, "models": rows}


def transfers(table: Table, columns: Columns) -> list[Transfer]:
    """The baselines `mean` (of the training accuracies) and the order's mean elsewhere, each statistic, all together.

    Accuracies are standardised within each model, the one left out included: a prediction is about which orders are
    good for a model, not about how good the model is. Nothing where fewer than two models share orders.
    """
    if len(table.models) < 2:
        return []
    rows = {model: {cell.order.name: (cell, ()) for cell in table.of(model)} for model in table.models}
    found = [_leave_out(MEAN, rows, _mean), _leave_out(ELSEWHERE, _shared(rows), _elsewhere)]
    for name in columns:
        found.append(_leave_out(name, _rows(table, {name: columns[name]}), _regression))
    if len(columns) > 1:
        found.append(_leave_out(ALL, _rows(table, columns), _regression))
    return [each for each in found if each is not None]


def by_chance(table: Table, columns: Columns, found: Sequence[Transfer], seed: int) -> float | None:
    """How often the best of all regressions does as well where the statistics are dealt to the orders at random.

    The models share orders, whose statistics are the same in training and in test, so that a regression with many of
    them learns the orders by heart: its R2 is no evidence by itself. None where there is nothing to compare.
    """
    best = _best(found, columns)
    if best is None:
        return None
    rng = np.random.default_rng(seed)
    as_good = 0
    for _ in range(_SHUFFLES):
        dealt = {}
        names = sorted({name for column in columns.values() for name in column})
        other = dict(zip(names, rng.permutation(names).tolist(), strict=True))
        for statistic, column in columns.items():
            dealt[statistic] = {name: column[other[name]] for name in names if other[name] in column}
        told = _best(transfers(table, dealt), columns)
        as_good += told is not None and told >= best
    return (1 + as_good) / (1 + _SHUFFLES)


def _best(found: Sequence[Transfer], columns: Columns) -> float | None:
    return max((each.r2 for each in found if each.predictor in (ALL, *columns)), default=None)


Row = tuple[Cell, Sequence[float]]
Rows = Mapping[str, Mapping[str, Row]]  # model -> order -> the cell and its statistics
Part = tuple[list[str], NDArray[np.float64], NDArray[np.float64]]  # orders, statistics [M, F], accuracies [M]


def _rows(table: Table, columns: Columns) -> Rows:
    """The cells that have all of the statistics."""
    found: dict[str, dict[str, Row]] = {}
    for model in table.models:
        having = [
            {cell.order.name: value for cell, value in points(table.of(model), column)} for column in columns.values()
        ]
        cells = [cell for cell in table.of(model) if all(cell.order.name in column for column in having)]
        found[model] = {cell.order.name: (cell, [column[cell.order.name] for column in having]) for cell in cells}
    return found


def _shared(rows: Rows) -> Rows:
    """The orders that some other model has as well."""
    count = {name: sum(name in own for own in rows.values()) for own in rows.values() for name in own}
    return {model: {name: row for name, row in own.items() if count[name] > 1} for model, own in rows.items()}


def _leave_out(predictor: str, rows: Rows, guess: Any) -> Transfer | None:
    """Predict every model from the others; None where fewer than two have three orders with different accuracies."""
    parts = {model: part for model, own in rows.items() if (part := _part(own)) is not None}
    if len(parts) < 2:
        return None
    guesses, wrong, spread = [], 0.0, 0.0
    for model, (names, x_MF, z_M) in parts.items():
        others = [part for name, part in parts.items() if name != model]
        told_M = guess(others, names, x_MF)
        wrong_here, spread_here = float(((z_M - told_M) ** 2).sum()), float((z_M**2).sum())
        rank = float(spearman(told_M, z_M))
        guesses.append(Guess(model, len(names), 1 - wrong_here / spread_here, rank))
        wrong, spread = wrong + wrong_here, spread + spread_here
    return Transfer(predictor, tuple(guesses), 1 - wrong / spread)


def _part(own: Mapping[str, Row]) -> Part | None:
    good_M = np.array([cell.good for cell, _ in own.values()])
    if len(good_M) < 3 or np.ptp(good_M) < 1e-12:
        return None
    x_MF = np.array([values for _, values in own.values()], dtype=np.float64)
    return [*own], x_MF, (good_M - good_M.mean()) / good_M.std()


def _mean(others: Sequence[Part], names: Sequence[str], x_MF: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(len(names), np.concatenate([z_M for _, _, z_M in others]).mean())


def _elsewhere(others: Sequence[Part], names: Sequence[str], x_MF: NDArray[np.float64]) -> NDArray[np.float64]:
    known: dict[str, list[float]] = {}
    for other_names, _, z_M in others:
        for name, z in zip(other_names, z_M, strict=True):
            known.setdefault(name, []).append(float(z))
    return np.array([np.mean(known.get(name, [0.0])) for name in names])


def _regression(others: Sequence[Part], names: Sequence[str], x_MF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares on one statistic, ridge on several; standardised by what the training models show."""
    train_MF, z_M = np.concatenate([x for _, x, _ in others]), np.concatenate([z for _, _, z in others])
    centre_F, scale_F = train_MF.mean(axis=0), np.maximum(train_MF.std(axis=0), 1e-12)
    s_MF = (train_MF - centre_F) / scale_F
    penalty = _RIDGE if s_MF.shape[1] > 1 else 1e-9
    weight_F = np.linalg.solve(s_MF.T @ s_MF + penalty * np.eye(s_MF.shape[1]), s_MF.T @ (z_M - z_M.mean()))
    told_M: NDArray[np.float64] = (x_MF - centre_F) / scale_F @ weight_F + z_M.mean()
    return told_M
