"""From doubly stochastic matrices to orders, and tokens read in them: the hard order forward, the matrix backward.

B images, G orders, N slots (rows) and patches (columns), D width. b are the images of one order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.autograd.function import once_differentiable


def harden(scores_NN: Tensor) -> Tensor:
    """The order with the greatest sum of scores, int64 [N]: argmax over P of ⟨P, X⟩, the matching M(X) of the paper.

    By the Hungarian method in float64, O(N³) at worst. Adding a number to a row or column changes nothing, so the
    hardened matrix and the hardened scores are the same order: X / τ and log S differ by just such numbers.
    """
    matrix = scores_NN.detach().double().cpu().numpy()
    perm_N = torch.from_numpy(linear_sum_assignment(matrix, maximize=True)[1]).long()
    return perm_N.to(scores_NN.device)


def read(soft_GNN: Tensor, perm_GN: Tensor, group_B: Tensor, tokens_BND: Tensor) -> Tensor:
    """Tokens [B, N, D] in slot order: exactly those of the hard orders, differentiated as P = hard + soft − [soft].

    So a token's gradient goes back to its own patch, and the matrix of each order gets Σ_b ∂out_b tokens_bᵀ, [N, N],
    as if it had been applied. No [B, N, N] exists; the backward pass multiplies once for each order.
    """
    return _Read.apply(soft_GNN, perm_GN, group_B, tokens_BND)  # type: ignore[no-any-return]


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, soft_GNN: Tensor, perm_GN: Tensor, group_B: Tensor, tokens_BND: Tensor) -> Tensor:
        ctx.save_for_backward(perm_GN, group_B, tokens_BND)
        ctx.dtype = soft_GNN.dtype
        return tokens_BND.take_along_dim(perm_GN[group_B].unsqueeze(-1), dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BND: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        perm_GN, group_B, tokens_BND = ctx.saved_tensors
        grad_GNN = back_BND = None
        if ctx.needs_input_grad[0]:
            grad_GNN = _products(grad_BND, tokens_BND, group_B, len(perm_GN)).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            slot_GN = perm_GN.argsort(1)
            back_BND = grad_BND.take_along_dim(slot_GN[group_B].unsqueeze(-1), dim=1)
        return grad_GNN, None, None, back_BND


def _products(grad_BND: Tensor, tokens_BND: Tensor, group_B: Tensor, groups: int) -> Tensor:
    """Σ_b grad_b tokens_bᵀ for the images of each order, [G, N, N]; zeros for an order without images."""
    if groups == 1:
        return torch.tensordot(grad_BND, tokens_BND, dims=([0, 2], [0, 2]))[None]
    images = [(group_B == group).nonzero().squeeze(1) for group in range(groups)]
    return torch.stack([torch.tensordot(grad_BND[b], tokens_BND[b], dims=([0, 2], [0, 2])) for b in images])


@dataclass(frozen=True)
class SoftRead:
    """`Draw.soft`: called with tokens in patch order, gives tokens in slot order (see `read`)."""

    soft_GNN: Tensor
    perm_GN: Tensor
    group_B: Tensor

    def __call__(self, tokens_BND: Tensor) -> Tensor:
        device = tokens_BND.device
        return read(self.soft_GNN.to(device), self.perm_GN.to(device), self.group_B.to(device), tokens_BND)

    def part(self, images: slice) -> SoftRead:
        """The same for these images."""
        return replace(self, group_B=self.group_B[images])
