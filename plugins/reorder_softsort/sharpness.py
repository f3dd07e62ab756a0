"""How near a soft order is to a hard one: the largest weight of each row of its matrix.

N slots or patches, P patches of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_softsort.soft_order import MakeRows

_BLOCK = 256  # columns of the matrix that exist at once


def row_peaks(falling_N: Tensor, tau: float, make: MakeRows) -> tuple[Tensor, Tensor]:
    """Where each row of the soft order is largest, int64 [N] in the hard order's places, and its weight there, [N].

    The first of equal weights counts. O(N²) time: it is for the log.
    """
    n = falling_N.shape[0]
    rows = make(falling_N, tau, torch.float32)
    place_N, peak_N = torch.zeros_like(falling_N, dtype=torch.int64), torch.zeros_like(falling_N, dtype=torch.float32)
    for start in range(0, n, _BLOCK):
        width = min(_BLOCK, n - start)
        one_NP = torch.zeros(n, width, device=falling_N.device)
        one_NP[start : start + width].fill_diagonal_(1.0)
        weight_N, column_N = rows.apply(one_NP).max(dim=1)
        larger_N = weight_N > peak_N
        place_N = torch.where(larger_N, column_N + start, place_N)
        peak_N = torch.where(larger_N, weight_N, peak_N)
    return place_N, peak_N
