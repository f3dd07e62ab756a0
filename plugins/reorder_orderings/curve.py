"""What the curves share: a path over one rectangle, read frame after frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, Grid


class Curve:
    """An ordering given by a path over one rectangle; each frame is read by that path, one after the other."""

    def __init__(self, settings: Any, context: Context) -> None:
        self.settings = settings

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        """The patches of one frame in reading order, int64 [rows * columns], numbered row-major."""
        raise TypeError(f"{type(self).__name__} must define path(rows, columns)")

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The order of the whole grid, int64 [N]."""
        return frame_after_frame(self.path(grid.rows, grid.columns), grid)


def frame_after_frame(path_n: NDArray[np.int64], grid: Grid) -> NDArray[np.int64]:
    """The path of one frame, of n = rows * columns patches, repeated for each frame of the grid, int64 [N]."""
    first_F1 = np.arange(grid.frames, dtype=np.int64)[:, None] * (grid.rows * grid.columns)
    return (first_F1 + path_n).reshape(-1)


def numbers(rows: int, columns: int) -> NDArray[np.int64]:
    """The number of the patch at each place, int64 [rows, columns]."""
    return np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
