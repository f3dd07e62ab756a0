"""The legible twins: each relaxation as its paper's matrix, left to autograd. N slots or patches.

Rows are slots, columns patches; scores in patch order, the highest first. For tests and benchmarks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def softsort_matrix(scores_N: Tensor, tau: float) -> Tensor:
    """softmax(−|sort(s)_i − s_j| / τ) over j, [N, N] (Prillo & Eisenschlos 2020, equation 4 with the metric |·|)."""
    falling_N = scores_N.sort(descending=True).values
    return (-(falling_N[:, None] - scores_N[None, :]).abs() / tau).softmax(dim=-1)


def neuralsort_matrix(scores_N: Tensor, tau: float) -> Tensor:
    """softmax(((N + 1 − 2i) s_j − Σ_k |s_j − s_k|) / τ) over j, i from 1, [N, N] (Grover et al. 2019, equation 5)."""
    n = scores_N.shape[0]
    spread_N = (scores_N[:, None] - scores_N[None, :]).abs().sum(dim=1)
    lift_N = n + 1 - 2 * torch.arange(1, n + 1, dtype=scores_N.dtype, device=scores_N.device)
    return ((lift_N[:, None] * scores_N[None, :] - spread_N[None, :]) / tau).softmax(dim=-1)


def lapsum_matrix(scores_N: Tensor, tau: float) -> Tensor:
    """F((b_{j+1} − u_i) / τ) − F((b_j − u_i) / τ) with u = −s, [N, N] (Struski et al. 2025, section 5).

    The bounds b by bisection, and one step of Newton's method, which gives them their implicit gradient.
    """
    u_N, n = -scores_N, scores_N.shape[0]
    wanted = torch.arange(1, n, dtype=scores_N.dtype, device=scores_N.device)
    fixed_N, reach = u_N.detach(), tau * (n + 40)
    low, high = ((fixed_N.min() - reach).expand(n - 1), (fixed_N.max() + reach).expand(n - 1))
    for _ in range(80):
        middle = (low + high) / 2
        enough = laplace_cdf((middle[:, None] - fixed_N) / tau).sum(1) >= wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    bound_J1 = ((low + high) / 2)[:, None]
    slope_J1 = (0.5 * (-(bound_J1 - fixed_N).abs() / tau).exp()).sum(1, keepdim=True) / tau
    slope_J1 = slope_J1.clamp_min(torch.finfo(scores_N.dtype).tiny)  # between scores far apart it underflows
    count_J1 = laplace_cdf((bound_J1 - u_N) / tau).sum(1, keepdim=True)
    bound_J1 = bound_J1 - (count_J1 - wanted[:, None]) / slope_J1
    below = laplace_cdf((bound_J1 - u_N) / tau)
    return torch.cat([below, torch.ones_like(u_N)[None]]) - torch.cat([torch.zeros_like(u_N)[None], below])


def laplace_cdf(z: Tensor) -> Tensor:
    """F of the standard Laplace distribution."""
    tail = 0.5 * (-z.abs()).exp()
    return torch.where(z < 0, tail, 1.0 - tail)
