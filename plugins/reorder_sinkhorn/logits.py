"""How the logits of slots and patches are written: a fixed start from the prior, plus what is learned.

N slots (rows) and patches (columns), R rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def height(patches: int, spread: float) -> float:
    """How far the prior's logits stand above the others: spread + log N.

    With Gumbel noise of scale 1, a row alone then prefers the prior's patch with a probability of about
    1 / (1 + e^−spread), whatever N. A matching keeps more: to exchange two patches, both rows must gain together.
    """
    return spread + math.log(patches)


class FullLogits(nn.Module):
    """height · permutation matrix of the prior + a learned N×N matrix that starts at 0: any logits can be learned."""

    prior_N: Tensor

    def __init__(self, prior_N: Tensor, spread: float) -> None:
        super().__init__()
        size = prior_N.numel()
        self.height = height(size, spread)
        self.learned_NN = nn.Parameter(torch.zeros(size, size))
        self.register_buffer("prior_N", prior_N, persistent=False)

    def forward(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Logits [N, N] of slot and patch."""
        start_NN = torch.zeros(self.learned_NN.shape, dtype=dtype, device=self.learned_NN.device)
        start_NN.scatter_(1, self.prior_N[:, None], self.height)
        return start_NN.add_(self.learned_NN)


class LowRankLogits(nn.Module):
    """A Bᵀ with a vector of R numbers for each slot (A) and each patch (B): a start on a curve, plus what is learned.

    Slot i starts at √(2 height / R) · (cos kθ_i, sin kθ_i) for k = 1 … R/2, θ_i = π (i + ½) / N, and patch prior[i] at
    the very same vector. All have the same length, so by Cauchy and Schwarz no assignment beats the prior's, and none
    equals it, since θ differences stay below 2π. The logits fall with the distance of slots, over about 2N / R slots.
    """

    slot_NR: Tensor
    patch_NR: Tensor

    def __init__(self, prior_N: Tensor, spread: float, rank: int) -> None:
        super().__init__()
        size = prior_N.numel()
        start_NR = _circle(size, rank) * math.sqrt(2.0 * height(size, spread) / rank)
        self.learned_slot_NR = nn.Parameter(torch.zeros(size, rank))
        self.learned_patch_NR = nn.Parameter(torch.zeros(size, rank))
        self.register_buffer("slot_NR", start_NR, persistent=False)
        self.register_buffer("patch_NR", torch.empty_like(start_NR).index_copy_(0, prior_N, start_NR), persistent=False)

    def forward(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Logits [N, N] of slot and patch."""
        slot_NR = self.slot_NR.to(dtype) + self.learned_slot_NR
        patch_NR = self.patch_NR.to(dtype) + self.learned_patch_NR
        return slot_NR @ patch_NR.T


def _circle(size: int, rank: int) -> Tensor:
    """(cos kθ, sin kθ) for k = 1 … rank/2, float64 [N, R]."""
    angle_N = math.pi / size * (torch.arange(size, dtype=torch.float64) + 0.5)
    angle_NF = angle_N[:, None] * torch.arange(1, rank // 2 + 1, dtype=torch.float64)
    return torch.cat([angle_NF.cos(), angle_NF.sin()], dim=1)
