"""The nearest code of each point, and the same one wherever the point stands in a batch.

M points, K codes, D numbers each.
"""

from __future__ import annotations

import torch
from torch import Tensor

_POINTS_AT_ONCE = 16_384
_TIE = 1e-6
"""how far rounding may take a squared distance, as a share of |z|² + |e|²"""


def nearest(points_MD: Tensor, codes_KD: Tensor) -> Tensor:
    """int64 [M]: of the codes that are nearest up to rounding, the first one.

    A product of matrices rounds differently at different rows. Where two codes are equal, or nearly, a plain argmin
    would name now the one and now the other for equal points, and a constant image would not have constant codes.
    """
    parts = []
    square_K = codes_KD.square().sum(dim=1)
    for points in torch.split(points_MD, _POINTS_AT_ONCE):
        size_MK = points.square().sum(dim=1, keepdim=True) + square_K
        distance_MK = size_MK - 2 * points @ codes_KD.T  # |z - e|²
        least_M1 = distance_MK.amin(dim=1, keepdim=True)
        parts.append((distance_MK <= least_M1 + _TIE * size_MK).to(torch.uint8).argmax(dim=1))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=points_MD.device)
