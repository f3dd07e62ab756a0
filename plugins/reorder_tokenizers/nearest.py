"""The nearest code of each point, and the same one wherever the point stands in a batch.

M points, K codes, D numbers each.
"""

from __future__ import annotations

import torch
from torch import Tensor

_POINTS_AT_ONCE = 16_384
_TIE = 1e-6


def squared_distances(points_MD: Tensor, codes_KD: Tensor) -> Tensor:
    """|z - e|², [M, K], never negative; about the codes' mean, which loses fewer digits."""
    mean_D = codes_KD.mean(dim=0)
    points_MD, codes_KD = points_MD - mean_D, codes_KD - mean_D
    square_M1, square_K = points_MD.square().sum(dim=1, keepdim=True), codes_KD.square().sum(dim=1)
    return (square_M1 + square_K - 2 * points_MD @ codes_KD.T).clamp_(min=0)


def nearest(points_MD: Tensor, codes_KD: Tensor) -> Tensor:
    """int64 [M]: of the codes that are nearest up to rounding, the first one.

    A product of matrices rounds differently at different rows. Where two codes are equal, or nearly, a plain argmin
    would name now the one and now the other for equal points, and a constant image would not have constant codes.
    """
    parts = []
    for points in points_MD.split(_POINTS_AT_ONCE):
        distance_MK = squared_distances(points, codes_KD)
        least_M1 = distance_MK.amin(dim=1, keepdim=True)
        scale_M1 = points.square().sum(dim=1, keepdim=True) + codes_KD.square().sum(dim=1).max()
        parts.append((distance_MK <= least_M1 + _TIE * scale_M1).to(torch.uint8).argmax(dim=1))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=points_MD.device)
