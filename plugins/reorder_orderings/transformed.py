"""Transformations of any ordering: backwards, transposed, mirrored, turned. Frames stay in their succession."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, Grid
from reorder_core.permutation import validate
from reorder_orderings.curve import numbers
from reorder_orderings.settings import FlipSettings, ReverseSettings, RotateSettings, TransposeSettings

Turn = Callable[[NDArray[Any]], NDArray[Any]]
"""Turns the last two axes of an array, rows and columns, from the wanted grid to that of the inner ordering."""


class Reverse:
    """The inner ordering from its last slot to its first (the last frame first)."""

    def __init__(self, settings: ReverseSettings, context: Context) -> None:
        self.inner = context.resolve(settings.of)
        self.name = settings.of.name
        if hasattr(self.inner, "fit"):
            self.fit = self.inner.fit

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The reversed order, int64 [N]."""
        return _inner_order(self.inner, grid, self.name)[::-1].copy()


class _Turned:
    """The path of the inner ordering over the turned grid, turned back."""

    def __init__(self, inner: Any, name: str, turn: Turn) -> None:
        self.inner, self.name, self.turn = inner, name, turn
        if hasattr(inner, "fit"):
            self.fit = self._fit

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The turned order, int64 [N]."""
        patch_RC = self.turn(numbers(grid.rows, grid.columns))
        inner_N = _inner_order(self.inner, self._inner_grid(grid), self.name)
        frame_N, place_N = np.divmod(inner_N, grid.rows * grid.columns)
        order_N: NDArray[np.int64] = frame_N * (grid.rows * grid.columns) + patch_RC.reshape(-1)[place_N]
        return order_N

    def _inner_grid(self, grid: Grid) -> Grid:
        rows, columns = self.turn(numbers(grid.rows, grid.columns)).shape
        return Grid(rows, columns, grid.frames)

    def _fit(self, images: NDArray[Any], grid: Grid, generator: Any) -> None:
        """The inner ordering sees the images turned as its grid is."""
        self.inner.fit(self.turn(images).copy(), self._inner_grid(grid), generator)


class Transpose(_Turned):
    """The order of the transposed grid, rows and columns exchanged: of row_major it is column_major."""

    def __init__(self, settings: TransposeSettings, context: Context) -> None:
        super().__init__(context.resolve(settings.of), settings.of.name, lambda a: a.swapaxes(-1, -2))


class Flip(_Turned):
    """The order in a mirror: left and right (horizontal) or top and bottom (vertical) change places."""

    def __init__(self, settings: FlipSettings, context: Context) -> None:
        axis = -1 if settings.axis == "horizontal" else -2
        super().__init__(context.resolve(settings.of), settings.of.name, lambda a: np.flip(a, axis))


class Rotate(_Turned):
    """The path turned clockwise by quarter turns."""

    def __init__(self, settings: RotateSettings, context: Context) -> None:
        # Turning the grid the other way first and then reading is turning the path.
        turns = settings.quarter_turns
        super().__init__(context.resolve(settings.of), settings.of.name, lambda a: np.rot90(a, turns, axes=(-2, -1)))


def _inner_order(inner: Any, grid: Grid, name: str) -> NDArray[np.int64]:
    order_N: NDArray[np.int64] = validate(inner.permutation(grid), grid.size, f"the order of '{name}'")
    return order_N
