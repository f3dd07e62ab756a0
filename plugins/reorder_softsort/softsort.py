"""SoftSort in O(N √N) time and memory, without its matrix (Prillo & Eisenschlos 2020, equation 4).

    P = softmax(−|a_i − a_j| / τ) over j,   y = P x,

for scores a that fall from slot to slot and tokens x that stand in the hard order. With K = exp(−|a_i − a_j| / τ) and
Z = K 1, y = K x / Z, and the gradient needs no more than products with the same symmetric K:

    H = ∂L/∂y / Z          ∂L/∂x = K H          h_i = <H_i, y_i>
    ∂L/∂a_i = (1/τ) Σ_j sign(i − j) K_ij (<H_i, x_j> − h_i + <H_j, x_i> − h_j)

Where two scores are equal, this is the gradient for the order in which they were sorted.

N slots, C slots of a chunk, M chunks, F features (images times width).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from reorder_softsort.laplace_kernel import LaplaceKernel


class SoftSortRows:
    """The rows of SoftSort's matrix for one vector of falling scores: applied, and differentiated."""

    slab = 131_072

    def __init__(self, falling_N: Tensor, tau: float, dtype: torch.dtype) -> None:
        """falling_N: float64 [N]. tau > 0, in units of the scores. dtype: of the tokens."""
        self.tau = tau
        self.kernel = LaplaceKernel(falling_N, tau, dtype)
        exact = self.kernel if dtype == torch.float64 else LaplaceKernel(falling_N, tau, torch.float64)
        self._exact = exact
        self._one_MC1 = exact.split(torch.ones_like(falling_N)[:, None])
        self._sum_MC1 = exact.multiply(self._one_MC1)
        self._share_MC1 = self._sum_MC1.reciprocal().to(dtype)
        self._grad = _ScoreGradient(self.kernel, falling_N.device)

    def apply(self, x_NF: Tensor) -> Tensor:
        """y = P x, [N, F]."""
        y_MCF = self.kernel.multiply(self.kernel.split(x_NF)).mul_(self._share_MC1)
        return self.kernel.join(y_MCF)

    def backward(self, x_NF: Tensor, grad_NF: Tensor) -> Tensor:
        """∂L/∂x of these features, [N, F]; what they say about the scores is added up for `score_gradient`."""
        kernel = self.kernel
        x_MCF, h_MCF = kernel.split(x_NF), kernel.split(grad_NF) * self._share_MC1
        carry_h_M2F = kernel.carries(h_MCF)
        self._grad.add(x_MCF, h_MCF, kernel.carries(x_MCF), carry_h_M2F)
        return kernel.join(kernel.multiply(h_MCF, carry_h_M2F))

    def score_gradient(self) -> Tensor:
        """∂L/∂a, float64 [N], over all features that `backward` has seen."""
        exact = self._exact
        own_MC, others_MC, weighted_MC = self._grad.signed_sums(exact)
        share_MC = weighted_MC.unsqueeze(-1) / self._sum_MC1
        fixed_MC1 = share_MC * exact.earlier_less_later(self._one_MC1) + exact.earlier_less_later(share_MC)
        return exact.join((own_MC + others_MC).unsqueeze(-1) - fixed_MC1).squeeze(-1) / self.tau


class _ScoreGradient:
    """<H_i, x_j> within each chunk, and each slot's products with the sums that arrive in its chunk."""

    def __init__(self, kernel: LaplaceKernel, device: torch.device) -> None:
        m, c = kernel.chunks, kernel.chunk
        self.kernel = kernel
        self.inner_MCC = kernel.block_MCC.new_zeros(m, c, c)
        self.h_MC2 = kernel.edge_MC2.new_zeros(m, c, 2)
        self.x_MC2 = kernel.edge_MC2.new_zeros(m, c, 2)

    def add(self, x_MCF: Tensor, h_MCF: Tensor, carry_x_M2F: Tensor, carry_h_M2F: Tensor) -> None:
        self.inner_MCC.baddbmm_(h_MCF, x_MCF.transpose(1, 2))
        self.h_MC2.baddbmm_(h_MCF, carry_x_M2F.transpose(1, 2))
        self.x_MC2.baddbmm_(x_MCF, carry_h_M2F.transpose(1, 2))

    def signed_sums(self, exact: LaplaceKernel) -> Iterable[Tensor]:
        """Σ_j sign(i − j) K_ij <H_i, x_j>, the same with <H_j, x_i>, and Σ_j K_ij <H_i, x_j>; float64 [M, C] each."""
        inner_MCC = exact.block_MCC * self.inner_MCC
        h_MC2, x_MC2 = exact.edge_MC2 * self.h_MC2, exact.edge_MC2 * self.x_MC2
        earlier_MCC, later_MCC = inner_MCC.tril(-1), inner_MCC.triu(1)
        own_MC = earlier_MCC.sum(-1) - later_MCC.sum(-1) + h_MC2[..., 0] - h_MC2[..., 1]
        others_MC = later_MCC.sum(-2) - earlier_MCC.sum(-2) + x_MC2[..., 0] - x_MC2[..., 1]
        return own_MC, others_MC, inner_MCC.sum(-1) + h_MC2.sum(-1)
