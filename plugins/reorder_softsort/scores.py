"""Scores along a line: a ramp plus what is learned, standardised, so that a temperature in slots means the same always.

N patches or places on the line, K orders.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def standardised(learned_N: Tensor) -> Tensor:
    """Ramp N−1 … 0 plus `learned_N`, float64 [N], shifted and scaled to the mean and deviation of the ramp itself.

    Neighbours in the sorted order are 1 apart on the average of an even spread, whatever has been learned: without
    this a policy could answer a falling temperature by spreading its scores, and a rising one by drawing them together.
    """
    n = learned_N.shape[0]
    ramp_N = torch.arange(n - 1, -1, -1, dtype=torch.float64, device=learned_N.device)
    score_N = ramp_N + learned_N.double()
    if n == 1:
        return score_N
    middle, spread = (n - 1) / 2, math.sqrt((n * n - 1) / 12)
    centred_N = score_N - score_N.mean()
    # scores that are all equal have no deviation: they stay where they are
    deviation = centred_N.square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    return centred_N * (spread / deviation) + middle


def gumbel_noise(orders: int, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Standard Gumbel noise, float64 [K, N], drawn on the CPU so that it is the same wherever the scores live."""
    tiny = torch.finfo(torch.float64).tiny
    uniform_KN = torch.rand(orders, n, generator=generator, dtype=torch.float64).clamp_(tiny, 1.0 - 2.0**-53)
    return uniform_KN.log_().neg_().log_().neg_().to(device)


def falling(score_N: Tensor) -> tuple[Tensor, Tensor]:
    """Scores sorted from the highest, with gradient, and where each came from; equal ones keep their order."""
    index_N = score_N.detach().argsort(descending=True, stable=True)
    return score_N[index_N], index_N
