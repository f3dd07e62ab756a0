"""The spiral, between any corner and the middle, either way round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_orderings.curve import Curve, numbers

CORNERS = ("top_left", "top_right", "bottom_right", "bottom_left")


def spiral(
    rows: int, columns: int, inward: bool = True, clockwise: bool = True, corner: str = "top_left"
) -> NDArray[np.int64]:
    """Around the edge from `corner`, then around what is left, int64 [rows * columns]: only side neighbours.

    clockwise: which way it winds from the corner inward. inward False: the same path from the middle to the corner.
    """
    # Turned (and mirrored) so that the corner lies at the upper left and the path winds clockwise from it.
    left = np.rot90(numbers(rows, columns), CORNERS.index(corner))
    if not clockwise:
        left = left.T
    rings = []
    while left.size:
        rings += [left[0, :], left[1:, -1]]
        if left.shape[0] > 1:
            rings.append(left[-1, -2::-1])
        if left.shape[1] > 1:
            rings.append(left[-2:0:-1, 0])
        left = left[1:-1, 1:-1]
    path = np.concatenate(rings)
    return path if inward else path[::-1].copy()


class Spiral(Curve):
    """`spiral` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return spiral(rows, columns, self.settings.inward, self.settings.clockwise, self.settings.corner)
