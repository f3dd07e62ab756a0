"""Where the digits of a scene stand, so that they do not cover each other.

B scenes, O digits, C places that are tried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_digits.draws import Draws
from reorder_digits.settings import rows_for

# Streams of random numbers, apart from those of `scenes_composition`.
_TRIED, _CELL, _JITTER = 32, 33, 34
_TRIES = 32


def placed(
    draws: Draws, side_BO: NDArray[np.int64], count_B: NDArray[np.int64], size: int, overlap: float
) -> NDArray[np.int64]:
    """Row and column of each digit's first pixel: int64 [B, O, 2].

    Each digit takes the first of 32 uniform places that keeps clear of those before it. A scene in which one finds none
    is laid out anew, at random in cells of a grid: nothing is rejected, and no loop runs until it is lucky.
    """
    count, most = side_BO.shape
    room_BO = size - side_BO
    share_BOC2 = draws.uniform(_TRIED, most * _TRIES * 2).reshape(count, most, _TRIES, 2)
    tried_BOC2 = np.floor(share_BOC2 * (room_BO + 1)[..., None, None]).astype(np.int64)
    place_BO2 = tried_BOC2[:, :, 0].copy()
    stuck_B = np.zeros(count, bool)
    for number in range(1, most):
        clear_BC = np.ones((count, _TRIES), bool)
        for other in range(number):
            clear_BC &= ~_covered(
                tried_BOC2[:, number], side_BO[:, number], place_BO2[:, other], side_BO[:, other], overlap
            )
        place_BO2[:, number] = tried_BOC2[np.arange(count), number, clear_BC.argmax(1)]
        stuck_B |= ~clear_BC.any(1) & (number < count_B)
    place_BO2[stuck_B] = _in_cells(draws, side_BO, size)[stuck_B]
    return place_BO2


def _covered(
    tried_BC2: NDArray[np.int64],
    side_B: NDArray[np.int64],
    other_B2: NDArray[np.int64],
    other_side_B: NDArray[np.int64],
    overlap: float,
) -> NDArray[np.bool_]:
    """Whether two squares share more than `overlap` of the smaller one: bool [B, C]."""
    end_BC2 = np.minimum(tried_BC2 + side_B[:, None, None], (other_B2 + other_side_B[:, None])[:, None])
    shared_BC2 = np.maximum(0, end_BC2 - np.maximum(tried_BC2, other_B2[:, None]))
    smaller_B1 = np.minimum(side_B, other_side_B)[:, None] ** 2
    covered_BC: NDArray[np.bool_] = shared_BC2.prod(-1) > overlap * smaller_B1
    return covered_BC


def _in_cells(draws: Draws, side_BO: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """One digit a cell of a square grid, anywhere inside the cell: int64 [B, O, 2]."""
    count, most = side_BO.shape
    per_side = rows_for(most)
    cell_BO = np.argsort(draws.bits(_CELL, per_side**2), axis=1, kind="stable")[:, :most]
    room_BO = size // per_side - side_BO
    jitter_BO2 = np.floor(draws.uniform(_JITTER, most * 2).reshape(count, most, 2) * (room_BO + 1)[..., None])
    corner_BO2 = np.stack([cell_BO // per_side, cell_BO % per_side], axis=-1) * (size // per_side)
    return corner_BO2 + jitter_BO2.astype(np.int64)
