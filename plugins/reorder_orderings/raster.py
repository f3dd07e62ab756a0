"""Lines: row after row, column after column, and the snake that turns at each end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_orderings.curve import Curve, numbers


def row_major(rows: int, columns: int) -> NDArray[np.int64]:
    """Row after row, each from left to right: the identity, int64 [rows * columns]."""
    return numbers(rows, columns).reshape(-1)


def column_major(rows: int, columns: int) -> NDArray[np.int64]:
    """Column after column, each from top to bottom, int64 [rows * columns]."""
    return numbers(rows, columns).T.reshape(-1)


def snake(rows: int, columns: int, axis: str = "rows") -> NDArray[np.int64]:
    """Lines along `axis`, every second one backwards, int64 [rows * columns]: each step goes to a side neighbour.

    The boustrophedon ("as the ox turns"); a snake over diagonals is called `zigzag` here.
    """
    lines = numbers(rows, columns) if axis == "rows" else numbers(rows, columns).T
    lines = lines.copy()
    lines[1::2] = lines[1::2, ::-1]
    return lines.reshape(-1)


class RowMajor(Curve):
    """`row_major` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return row_major(rows, columns)


class ColumnMajor(Curve):
    """`column_major` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return column_major(rows, columns)


class Snake(Curve):
    """`snake` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return snake(rows, columns, self.settings.axis)
