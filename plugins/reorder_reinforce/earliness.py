"""The rank estimator: how early each patch stood takes the place of the score ∇ log p.

K orders, N patches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def earliness(perm_KN: Tensor) -> Tensor:
    """((N − 1)/2 − slot) / sd of each patch, float64 [K, N]: mean 0, variance 1 over the slots; zeros where N is 1."""
    k, patches = perm_KN.shape
    spread = math.sqrt((patches**2 - 1) / 12) or 1.0
    of_slot_N = torch.arange(patches, device=perm_KN.device, dtype=torch.float64).sub_((patches - 1) / 2).div_(-spread)
    return torch.empty(k, patches, dtype=torch.float64, device=perm_KN.device).scatter_(
        1, perm_KN, of_slot_N.expand(k, patches)
    )


def rank_evidence(logits_KN: Tensor, perm_KN: Tensor) -> Tensor:
    """Σ_patch logit · earliness, [K], with gradient to the logits, which is the earliness itself.

    The mean of advantage · this has the sample covariance of reward and earliness as its gradient. Its expectation is
    Cov(R, x), the exact gradient at η = 0 of E[R] under the current law tilted by exp(Σ η_patch · x_patch). It is *not*
    ∇ E[R] in the Plackett-Luce logits: see README.md for when the two agree.
    """
    return (logits_KN * earliness(perm_KN)).sum(1)
