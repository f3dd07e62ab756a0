"""The statistics of every order: those of its permutation itself, and those of prior tables beside them.

N patches, K permutations of one entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid, permutation
from reorder_predict.prior import PriorTable
from reorder_predict.table import Order, Table

_DIGITS = 9  # beyond them is rounding, which would rank what is a tie: an order and its reverse have the same entropies
Columns = dict[str, dict[str, float]]  # statistic -> order -> value


def order_statistics(orders_KN: NDArray[np.int64], grid: Grid) -> dict[str, float]:
    """What needs the permutation only, averaged over the K permutations.

    neighbour_distance: the mean distance on the grid between consecutive patches (Euclidean, in patches; frames count
    as rows and columns do). unit_steps: the share of steps to a side neighbour. tau_to_row_major: Kendall's τ to
    reading row by row, 1 … -1.
    """
    moved_KS3 = permutation.steps(orders_KN, grid)
    row_major_KN = np.broadcast_to(np.arange(grid.size), orders_KN.shape)
    return {
        "neighbour_distance": float(np.sqrt((moved_KS3.astype(np.float64) ** 2).sum(axis=-1)).mean()),
        "unit_steps": float(np.mean(permutation.unit_step_share(orders_KN, grid))),
        "tau_to_row_major": float(np.mean(permutation.kendall_tau(orders_KN, row_major_KN))),
    }


def all_statistics(table: Table, priors: Sequence[PriorTable], notes: list[str]) -> Columns:
    """Every statistic of every order that has it; what has no answer is said in `notes`."""
    found: Columns = {}
    for order in table.orders:
        for name, value in order_statistics(order.orders_KN, table.grid).items():
            found.setdefault(name, {})[order.name] = value
    apart = _sources(priors)
    for prior, source in zip(priors, apart, strict=True):
        values = prior.values(table.orders, table.grid)
        _note_missing(table.orders, values, prior, notes)
        for name, column in values.items():
            _add(found, f"{name} ({source})" if source else name, column)
    constant = [name for name, column in found.items() if len(column) > 1 and _is_constant(column.values())]
    for name in constant:
        del found[name]
    for column in found.values():
        column.update({order: float(f"{value:.{_DIGITS}g}") for order, value in column.items()})
    if constant:
        verb = "is" if len(constant) == 1 else "are"
        notes.append(f"{', '.join(constant)} {verb} the same in every order, and can predict nothing")
    return found


def _is_constant(values: object) -> bool:
    value_M = np.array([*values])  # type: ignore[misc]
    return bool(np.ptp(value_M) <= 1e-9 * max(1.0, float(np.abs(value_M).max())))


def _add(found: Columns, name: str, column: Mapping[str, float]) -> None:
    """A column that is there already under another source (a tokenizer's entropy under two compressors) stays one."""
    stem = name.split(" (")[0]
    for known, other in found.items():
        same = known.split(" (")[0] == stem and other.keys() == column.keys()
        if same and all(abs(other[order] - column[order]) <= 1e-9 * max(1.0, abs(column[order])) for order in column):
            return
    found[name] = dict(column)


def _sources(priors: Sequence[PriorTable]) -> list[str]:
    """What sets each table apart from the others; nothing where there is one."""
    if len(priors) < 2:
        return [""] * len(priors)
    keys = [key for key in priors[0].source if len({prior.source[key] for prior in priors}) > 1]
    told = [", ".join(prior.source[key] for key in keys) for prior in priors]
    return [
        text if told.count(text) == 1 and text else prior.path.stem for text, prior in zip(told, priors, strict=True)
    ]


def _note_missing(orders: Sequence[Order], values: Columns, prior: PriorTable, notes: list[str]) -> None:
    there = {name for column in values.values() for name in column}
    learned = [order.name for order in orders if order.learned]
    if learned:
        notes.append(
            f"{', '.join(learned)}: a learned order stands in no prior table, so that only the statistics of its own "
            f"permutation are known"
        )
    absent = [order.name for order in orders if not order.learned and order.name not in there]
    if absent:
        where = (
            "is not in it, or stands there with another permutation"
            if len(absent) == 1
            else ("are not in it, or stand there with other permutations")
        )
        notes.append(f"{prior.path}: {', '.join(absent)} {where}")
