"""Diagonals from the upper left corner to the lower right one, one way or to and fro."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_orderings.curve import Curve


def diagonal(rows: int, columns: int) -> NDArray[np.int64]:
    """Diagonal after diagonal (row + column grows), each from upper right to lower left, int64 [rows * columns]."""
    row, column = np.divmod(np.arange(rows * columns, dtype=np.int64), columns)
    return np.argsort((row + column) * rows + row, kind="stable")


def zigzag(rows: int, columns: int) -> NDArray[np.int64]:
    """The same diagonals, every second one backwards, int64 [rows * columns]: no step longer than one row and column.

    From the first patch to its right neighbour, down to the left, and so on: the scan of JPEG (ITU-T T.81, figure 5).
    """
    row, column = np.divmod(np.arange(rows * columns, dtype=np.int64), columns)
    diagonal_number = row + column
    place = np.where(diagonal_number % 2 == 1, row, rows - 1 - row)
    return np.argsort(diagonal_number * rows + place, kind="stable")


class Diagonal(Curve):
    """`diagonal` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return diagonal(rows, columns)


class Zigzag(Curve):
    """`zigzag` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return zigzag(rows, columns)
