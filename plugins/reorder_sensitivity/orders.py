"""The orders that a model is tried in: named curves, random orders, adjacent swaps.

N patches, K orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reorder_core import ComponentRef, ReorderError, UsageError
from reorder_core.opened import Opened

ASIDE = ("random", "file")  # not curves: random orders are drawn here, and a file is the reader's own


@dataclass(frozen=True)
class Tried:
    """Orders of one kind, int64 [K, N]: one for a curve, several where they are drawn."""

    name: str
    orders_KN: NDArray[np.int64]


def named_orders(opened: Opened, names: Sequence[str] | None) -> list[Tried]:
    """The orders of these orderings; by default of all that need no settings and know the grid, each once.

    Raises `UsageError` for a name that is not installed or has no order on this grid.
    """
    catalogue = opened.catalogue
    if names is not None:
        return [Tried(name, opened.order_of(ComponentRef("ordering", name))[None]) for name in names]
    found = []
    for entry in catalogue.entries("ordering"):
        name = entry.component.name
        if entry.state != "ok" or name in ASIDE or _needs_settings(opened, name):
            continue
        try:
            order_N = opened.order_of(ComponentRef("ordering", name))
        except ReorderError:  # a curve that this grid does not have: Hilbert on several frames, say
            continue
        if not any(np.array_equal(order_N, known.orders_KN[0]) for known in found):
            found.append(Tried(name, order_N[None]))
    return found


def _needs_settings(opened: Opened, name: str) -> bool:
    catalogue = opened.catalogue
    model = catalogue.settings_class(catalogue.find("ordering", name))
    return model is not None and any(field.is_required() for field in model.model_fields.values())


def random_orders(N: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Uniform orders, [K, N]."""
    if count < 1:
        raise UsageError(f"at least one random order is needed, not {count}")
    return np.stack([rng.permutation(N).astype(np.int64) for _ in range(count)])


def swapped_orders(base_N: NDArray[np.int64], swaps: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The base order after `swaps` exchanges of two neighbouring slots each, drawn anew for each of K orders."""
    orders_KN = np.tile(base_N, (count, 1))
    for order_N in orders_KN:
        for slot in rng.integers(0, len(base_N) - 1, size=swaps):
            order_N[[slot, slot + 1]] = order_N[[slot + 1, slot]]
    return orders_KN
