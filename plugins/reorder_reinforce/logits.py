"""How the logits of an order are written: a fixed ramp along the prior, plus what is learned.

N patches, C curves, P parameters of one curve.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reorder_core import Grid
from reorder_core.plackett_luce import ramp


def dct_basis(grid: Grid, coefficients: int) -> Tensor:
    """The lowest `coefficients` frequencies of the 2-D (with frames 3-D) cosine transform, float64 [N, P].

    Column (u, v, w) is cos(πu(r+½)/R) · cos(πv(c+½)/C) · cos(πw(f+½)/F): the DCT-II basis, with a largest value of
    about 1, so that a coefficient is in units of a logit. By rising (u/R)² + (v/C)² + (w/F)²; the constant is left
    out, because a Plackett-Luce law does not change when all scores do.
    """
    sides = (grid.rows, grid.columns, grid.frames)
    frequencies = [
        (u, v, w) for u in range(grid.rows) for v in range(grid.columns) for w in range(grid.frames) if u or v or w
    ]
    frequencies.sort(key=lambda uvw: (sum((k / side) ** 2 for k, side in zip(uvw, sides, strict=True)), uvw))
    chosen = frequencies[:coefficients]
    places_N3 = torch.from_numpy(grid.places()).double()
    basis_NP = torch.ones(grid.size, len(chosen), dtype=torch.float64)
    for axis, side in enumerate(sides):
        k_P = torch.tensor([uvw[axis] for uvw in chosen], dtype=torch.float64)
        basis_NP *= torch.cos(math.pi / side * (places_N3[:, axis, None] + 0.5) * k_P)
    return basis_NP


class CurveLogits(torch.nn.Module):
    """Logits around each of C orders: ramp + basis · coefficients ("dct"), or ramp + a logit for each patch ("patch").

    What is learned starts at 0, so that the first logits are the ramps exactly.
    """

    ramp_CN: Tensor
    basis_NP: Tensor | None

    def __init__(self, grid: Grid, priors_CN: Tensor, spread: float, coefficients: int | None) -> None:
        """coefficients: P of the cosine form, or None for a logit for each patch."""
        super().__init__()
        basis_NP = None if coefficients is None else dct_basis(grid, coefficients)
        parameters = grid.size if basis_NP is None else basis_NP.shape[1]
        self.learned_CP = torch.nn.Parameter(torch.zeros(priors_CN.shape[0], parameters))
        self.register_buffer("ramp_CN", torch.stack([ramp(prior_N, spread) for prior_N in priors_CN]), persistent=False)
        self.register_buffer("basis_NP", basis_NP, persistent=False)

    def forward(self, learned_CP: Tensor | None = None) -> Tensor:
        """Logits, float64 [C, N]: with what is learned, or with other values of it."""
        learned_CP = (self.learned_CP if learned_CP is None else learned_CP).double()
        return self.ramp_CN + (learned_CP if self.basis_NP is None else learned_CP @ self.basis_NP.T)
