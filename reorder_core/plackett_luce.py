"""Plackett-Luce distributions over orders as pure functions (Luce 1959; Plackett 1975).

An order is drawn patch by patch: the next one with probability proportional to exp(score) among those that are left.
Adding Gumbel noise to the scores and sorting draws from the same law (Yellott 1977).

G orders, N patches. `perm_GN[g, slot] = patch`, int64. Scores are already divided by the temperature: what is sampled
and what is scored is one law because both take the same scores.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Up to this span of scores, sums of exponentials stay inside float64 (e^-600 · N and its inverse are normal numbers).
_PLAIN_SPAN = 600.0


def plackett_luce_log_prob(scores: Tensor, perm_GN: Tensor) -> Tensor:
    """log p(perm) = Σ_slot [ s_perm[slot] − log Σ_{later ≥ slot} exp s_perm[later] ], [G], with gradient to the scores.

    scores: [N], one law for all orders, or [G, N], a law for each. Computed in float64 whatever comes in, and returned
    in the dtype of the scores. Exact for every span of scores: no sum underflows, no difference of near numbers.
    """
    return _LogProb.apply(scores, perm_GN)  # type: ignore[no-any-return]


class _LogProb(torch.autograd.Function):
    """The gradient written out: ∂ log p / ∂ s_slot = 1 − exp(s_slot) · Σ_{i ≤ slot} 1 / Σ_{j ≥ i} exp s_j.

    One cumulative sum forward, one back, both over positive numbers, so that nothing cancels.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, perm_GN: Tensor) -> Tensor:
        backward_GN = perm_GN.flip(-1)  # from the last slot to the first: suffix sums are running sums
        s_GN = _take(scores.double(), backward_GN)
        s_GN -= s_GN.amax(-1, keepdim=True)
        plain = s_GN.numel() == 0 or float(s_GN.min()) > -_PLAIN_SPAN
        if plain:
            weight_GN = s_GN.exp()
            sum_GN = weight_GN.cumsum(-1)
            log_prob_G = s_GN.sum(-1) - sum_GN.log().sum(-1)
        else:
            weight_GN, sum_GN = s_GN, s_GN.logcumsumexp(-1)  # both as logarithms
            log_prob_G = (s_GN - sum_GN).sum(-1)
        ctx.save_for_backward(weight_GN, sum_GN, backward_GN)
        ctx.plain, ctx.shape, ctx.dtype = plain, scores.shape, scores.dtype
        return log_prob_G.to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_G: Tensor) -> tuple[Tensor, None]:
        weight_GN, sum_GN, backward_GN = ctx.saved_tensors
        if ctx.plain:
            share_GN = sum_GN.reciprocal().flip(-1).cumsum(-1).flip(-1).mul_(weight_GN)
        else:
            share_GN = ((-sum_GN).flip(-1).logcumsumexp(-1).flip(-1) + weight_GN).exp_()
        slope_GN = share_GN.neg_().add_(1.0).mul_(grad_G.double().unsqueeze(-1))
        grad = torch.zeros(ctx.shape, dtype=torch.float64, device=grad_G.device)
        if grad.ndim == 1:
            grad.index_add_(0, backward_GN.reshape(-1), slope_GN.reshape(-1))
        else:
            grad.scatter_(-1, backward_GN, slope_GN)
        return grad.to(ctx.dtype), None


def _take(scores: Tensor, perm_GN: Tensor) -> Tensor:
    return scores[perm_GN] if scores.ndim == 1 else scores.gather(-1, perm_GN)


def uniform_noise(
    groups: int, patches: int, generator: torch.Generator | None = None, antithetic: bool = False
) -> Tensor:
    """Uniform noise for `groups` orders, float64 [G, N] in (0, 1), on the CPU, the same wherever the scores live.

    antithetic: order g + G/2 gets 1 − the noise of order g, so that a patch drawn early in one is drawn late in the
    other; each order alone still follows the law.
    """
    if not antithetic:
        return torch.rand(groups, patches, generator=generator, dtype=torch.float64)
    half = torch.rand(groups // 2, patches, generator=generator, dtype=torch.float64)
    return torch.cat([half, 1.0 - half])


def gumbel_top_k(scores: Tensor, uniform_GN: Tensor) -> Tensor:
    """Orders drawn from the Plackett-Luce law of `scores` [N] or [G, N]: Gumbel noise, then a sort; int64 [G, N].

    (Yellott 1977; Kool, van Hoof & Welling 2019, "Stochastic beams and where to find them".)
    """
    tiny = torch.finfo(torch.float64).tiny
    uniform_GN = uniform_GN.to(scores.device, torch.float64).clamp(tiny, 1.0 - 2.0**-53)
    gumbel_GN = uniform_GN.log_().neg_().log_().neg_()
    key_GN = gumbel_GN.add_(scores.detach()).neg_()
    if key_GN.device.type == "cpu":  # NumPy's vectorised sort is several times as fast as torch's here
        return torch.from_numpy(np.argsort(key_GN.numpy(), axis=-1))
    return key_GN.argsort(dim=-1)


def mode(scores: Tensor, tie_break_N: Tensor) -> Tensor:
    """The most probable order: by falling score; equal scores stay in the order of `tie_break_N`.

    scores: [N], one law, or [G, N], a law for each; int64 of the same shape.
    """
    falling = scores.detach()[..., tie_break_N].argsort(dim=-1, descending=True, stable=True)
    return tie_break_N[falling]


def ramp(prior_N: Tensor, spread: float) -> Tensor:
    """Scores [N], float64, that fall from 0 to −spread along the prior: the mode of their law *is* the prior.

    They are scattered, not gathered: score[prior[slot]] = −spread · slot / (N − 1).
    """
    fall_N = torch.linspace(0.0, -spread, prior_N.numel(), dtype=torch.float64)
    return torch.empty_like(fall_N).scatter_(0, prior_N.cpu(), fall_N)


def entropy_estimate(log_prob_G: Tensor) -> Tensor:
    """Entropy in nats from a sample: the mean of −log p, unbiased where orders came from the law they are scored by."""
    return -log_prob_G.detach().mean()


def largest_entropy(patches: int) -> float:
    """Entropy of the uniform law over all orders, log N!."""
    return math.lgamma(patches + 1)


def kendall_tau(perm_GN: Tensor, other: Tensor) -> Tensor:
    """Kendall τ of each order with `other` [N] or [G, N], float32 [G]: 1 the same, −1 backwards, 0 unrelated. O(N²)."""
    slot_in_other = other.argsort(dim=-1)
    rank_GN = slot_in_other.expand_as(perm_GN).gather(-1, perm_GN).to(torch.int32)
    n = rank_GN.shape[-1]
    if n < 2:
        return torch.ones(rank_GN.shape[0])
    later_GNN = rank_GN.unsqueeze(-2) > rank_GN.unsqueeze(-1)  # row: earlier slot, column: later slot
    agree_G = later_GNN.triu_(diagonal=1).sum((-2, -1))
    return agree_G.float() * (4.0 / (n * (n - 1))) - 1.0
