"""LapSum's soft permutation, whose rows *and* columns sum to one (Struski et al. 2025, sections 3 and 5).

Blur each score u_i by a Laplace distribution of scale τ with distribution function F. LapSum(b) = Σ_i F((b − u_i) / τ)
counts softly how many scores lie below b, and has an inverse in closed form. The bounds b_j, LapSum(b_j) = j, cut the
line into N slots that hold one score's worth of mass each, and

    P_ji = F((b_{j+1} − u_i) / τ) − F((b_j − u_i) / τ),   b_0 = −∞, b_N = ∞.

F is a step less sign · exp(−|·| / τ) / 2, so a product with P is a gather, and a product with the kernel of the scores
and the bounds merged into one falling sequence (`laplace_kernel.py`): no matrix, O(N √N). The gradient of the bounds is
implicit: ∂b_j/∂u_i = K_ji / Σ_k K_jk.

N slots, S = 2N − 1 scores and bounds, F features (images times width).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_softsort.laplace_kernel import LaplaceKernel


class LapSumRows:
    """The rows of LapSum's matrix for one vector of falling scores: applied, and differentiated."""

    slab = 131_072

    def __init__(self, falling_N: Tensor, tau: float, dtype: torch.dtype) -> None:
        """falling_N: float64 [N]. tau > 0, in units of the scores. dtype: of the tokens."""
        self.tau, self.size = tau, falling_N.shape[0]
        self._u_N = -falling_N
        self._b = bounds(self._u_N, tau)
        merged_S, place_S = torch.cat([self._u_N, self._b]).sort(stable=True)
        at_S = place_S.argsort()
        self._at_u_N, self._at_b = at_S[: self.size], at_S[self.size :]
        self._slot_N = self._at_u_N - torch.arange(self.size, device=at_S.device)  # how many bounds lie below
        self._exact = LaplaceKernel(-merged_S, tau, torch.float64)
        self.kernel = self._exact if dtype == torch.float64 else LaplaceKernel(-merged_S, tau, dtype)
        self._direct_N = torch.zeros_like(falling_N)
        self._moved = torch.zeros_like(self._b)

    def apply(self, x_NF: Tensor) -> Tensor:
        """y = P x, [N, F]."""
        earlier, later = self._sums(self.kernel, x_NF, self._at_u_N, self._at_b)
        bound = (later - earlier) * 0.5
        y_NF = torch.zeros_like(x_NF).index_add_(0, self._slot_N, x_NF)
        y_NF[:-1] += bound
        y_NF[1:] -= bound
        return y_NF

    def backward(self, x_NF: Tensor, grad_NF: Tensor) -> Tensor:
        """∂L/∂x of these features, [N, F]; what they say about the scores is added up for `score_gradient`."""
        step = grad_NF[:-1] - grad_NF[1:]  # ∂L/∂ of what lies below each bound
        earlier, later = self._sums(self.kernel, x_NF, self._at_u_N, self._at_b)
        self._moved += (step * (earlier + later)).sum(1)
        earlier_NF, later_NF = self._sums(self.kernel, step, self._at_b, self._at_u_N)
        self._direct_N += (x_NF * (earlier_NF + later_NF)).sum(1)
        return grad_NF[self._slot_N].add_(earlier_NF - later_NF, alpha=0.5)

    def score_gradient(self) -> Tensor:
        """∂L/∂a, float64 [N], over all features that `backward` has seen."""
        one_N1 = torch.ones_like(self._direct_N)[:, None]
        earlier, later = self._sums(self._exact, one_N1, self._at_u_N, self._at_b)
        # at a tiny tau no score reaches a bound: both underflow, and the bound has nothing to say
        share = self._moved[:, None] / (earlier + later).clamp_min_(torch.finfo(torch.float64).tiny)
        earlier_N1, later_N1 = self._sums(self._exact, share, self._at_b, self._at_u_N)
        return (self._direct_N - (earlier_N1 + later_N1).squeeze(1)) / (2 * self.tau)

    def _sums(self, kernel: LaplaceKernel, value: Tensor, places: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel-weighted sums over what stands earlier and later than each place that is read."""
        merged_SF = value.new_zeros(kernel.size, value.shape[1]).index_copy_(0, places, value)
        earlier_MCF, later_MCF = kernel.sides(kernel.split(merged_SF))
        return kernel.join(earlier_MCF).index_select(0, read), kernel.join(later_MCF).index_select(0, read)


def bounds(u_N: Tensor, tau: float) -> Tensor:
    """b_1 … b_{N−1} with LapSum(b_j) = j for rising u, float64 [N − 1] (Struski et al. 2025, theorem 3.2).

    Between two scores LapSum is c − exp(−(b − u) / τ) E / 2 + exp(−(u' − b) / τ) L / 2, where c scores lie below,
    and E and L are the kernel's sums up to u and from u' on: a quadratic equation in exp(b / τ).
    """
    n = u_N.shape[0]
    kernel = LaplaceKernel(-u_N, tau, torch.float64)
    sides = [kernel.join(side).squeeze(1) for side in kernel.sides(kernel.split(torch.ones_like(u_N)[:, None]))]
    upto_N, from_N = sides[0] + 1, sides[1] + 1
    count_N = torch.arange(n, dtype=torch.float64, device=u_N.device)
    at_score_N = (count_N + 0.5 + 0.5 * (sides[1] - sides[0])).cummax(0).values
    wanted = count_N[1:]
    below = torch.searchsorted(at_score_N, wanted)  # how many scores lie below the bound
    left, right = (below - 1).clamp(min=0), below.clamp(max=n - 1)
    # beyond the first and the last score one of the two sums is empty
    e, s = torch.where(below > 0, upto_N[left], 0.0), torch.where(below < n, from_N[right], 0.0)
    gap = ((u_N[left] - u_N[right]) / tau).exp()
    short = wanted - below
    root = (short * short + gap * e * s).sqrt()
    one = torch.ones_like(root)  # stands in where a branch is not taken, so that its logarithm is finite
    up, down = short > 0, short < 0
    from_right = u_N[right] + tau * (torch.where(up, short + root, one) / torch.where(up, s, one)).log()
    from_left = u_N[left] - tau * (torch.where(down, root - short, one) / torch.where(down, e, one)).log()
    both = ~(up | down)
    middle = 0.5 * (u_N[left] + u_N[right]) + 0.5 * tau * (torch.where(both, e, one) / torch.where(both, s, one)).log()
    return torch.where(up, from_right, torch.where(down, from_left, middle)).cummax(0).values if n > 1 else wanted
