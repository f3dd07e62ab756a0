"""The contract of an ordering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reorder_core.conformance.building import (
    Buildable,
    ContractBroken,
    Given,
    build,
    context,
    leaves_global_random_state,
    require,
)
from reorder_core.conformance.strategies import for_all, grids
from reorder_core.errors import UnsupportedGrid
from reorder_core.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALWAYS = (*(Grid(rows, columns) for rows in range(1, 7) for columns in range(1, 7)), Grid(14, 14), Grid(3, 4, 2))


def check_ordering(
    component: Buildable, settings: Given = None, *, on: Sequence[Grid] | None = None, max_side: int = 16
) -> None:
    """On every grid a bijection of its patches, int64 [N], or `UnsupportedGrid`; the same at every call.

    It is asked for all rectangles up to 6×6, for 14×14, for two frames, and for 40 drawn by Hypothesis up to
    `max_side`; or only for the grids `on`, for an ordering made for those. At least one must be supported.
    It must not touch a global random state, nor hand out an array whose change alters its next answer.
    One with `fit` is fitted to random images first, twice, with the same result.
    """
    supported = 0
    for grid in _ALWAYS if on is None else on:
        supported += _check_on(component, settings, grid)
    if on is None:

        @for_all(40, grids(max_side))
        def drawn(grid: Grid) -> None:
            _check_on(component, settings, grid)

    require(supported, "an ordering must support at least one of the grids that it is checked on")


def _check_on(component: Buildable, settings: Given, grid: Grid) -> bool:
    """Check on one grid; False where it says that it does not support it."""
    first, second = (_built(component, settings, grid) for _ in range(2))
    with leaves_global_random_state("permutation(grid)"):
        order_N = _answer(first, grid)
    if order_N is None:
        require(_answer(second, grid) is None, f"an ordering that refuses a grid of {grid} must always refuse it")
        return False
    _require_permutation(order_N, grid)
    kept_N = order_N.copy()
    for again in (first, second):
        require(
            _same(kept_N, _answer(again, grid)),
            f"permutation(grid) must be deterministic; two answers for {grid} differ",
        )
    if order_N.flags.writeable and grid.size > 1:
        order_N[:] = order_N[::-1].copy()
        require(
            _same(kept_N, _answer(first, grid)),
            "changing an answer must not change the next one: hand out a copy, or a read-only array",
        )
    return True


def _built(component: Buildable, settings: Given, grid: Grid) -> Any:
    where = context(grid)
    ordering = build("ordering", component, settings, where)
    if hasattr(ordering, "fit"):
        pixels = np.random.default_rng(0).standard_normal((8, 1, grid.rows * 4, grid.columns * 4), dtype=np.float32)
        ordering.fit(pixels, grid, where.generator)
    return ordering


def _answer(ordering: Any, grid: Grid) -> NDArray[np.int64] | None:
    try:
        answer = ordering.permutation(grid)
    except UnsupportedGrid as error:
        require(str(error), f"UnsupportedGrid must say which grids are supported (asked for {grid})")
        return None
    if not isinstance(answer, np.ndarray):
        raise ContractBroken(f"permutation(grid) must return a NumPy array, not {type(answer).__name__}")
    return answer


def _same(one_N: NDArray[np.int64], other_N: NDArray[np.int64] | None) -> bool:
    return other_N is not None and np.array_equal(one_N, other_N)


def _require_permutation(order_N: NDArray[np.int64], grid: Grid) -> None:
    require(order_N.dtype == np.int64, f"permutation(grid) must be int64, not {order_N.dtype}")
    require(
        order_N.shape == (grid.size,),
        f"permutation({grid}) must have shape [{grid.size}], not {list(order_N.shape)}",
    )
    require(
        np.array_equal(np.sort(order_N), np.arange(grid.size)),
        f"permutation({grid}) must name each of the patches 0 to {grid.size - 1} once, not {order_N.tolist()}",
    )
