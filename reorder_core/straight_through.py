"""Tokens put in the hard order of their scores, differentiated as SoftSort: for an order of each image.

Prillo & Eisenschlos 2020, arXiv 2006.16038, equation 3: P = softmax(−|sort(s) − s| / τ), row by row. A value that is
exactly the hard order's and a gradient that is the soft one's is the straight-through estimate of Bengio et al. 2013.

B images, N patches or slots, D width, R slots of a block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reorder_core.layout import take_each

_ELEMENTS = 2**20  # of B x R x N at once: a few MiB, however long the sequence


def falling_order(scores_BN: Tensor) -> Tensor:
    """int64 [B, N]: where the highest score stands, then the next; equal scores stay in the order they have."""
    return scores_BN.detach().argsort(dim=1, descending=True, stable=True)


def straight_through_sort(tokens_BND: Tensor, scores_BN: Tensor, index_BN: Tensor, temperature: float) -> Tensor:
    """`tokens[b, index[b]]`, [B, N, D]: what stands in slot i is the token with the i-th score of `index_BN`.

    The tokens get the gradient of this hard order. The scores get that of P_hard + P − [P] with SoftSort's P at
    `temperature` (above 0, in units of the scores). Nothing of N x N is kept for an image: the backward pass goes
    through blocks of slots and needs O(B·N·D) memory and O(B·N²·D) time.
    """
    return _Sort.apply(tokens_BND, scores_BN, index_BN, temperature)  # type: ignore[no-any-return]


class _Sort(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens_BND: Tensor, scores_BN: Tensor, index_BN: Tensor, temperature: float) -> Tensor:
        sorted_BND = take_each(tokens_BND, index_BN)
        ctx.save_for_backward(sorted_BND, scores_BN.gather(1, index_BN), index_BN)
        ctx.temperature = temperature
        return sorted_BND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BND: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        sorted_BND, a_BN, index_BN = ctx.saved_tensors
        grad_tokens = grad_scores = None
        if ctx.needs_input_grad[0]:
            grad_tokens = take_each(grad_BND, index_BN.argsort(dim=1))
        if ctx.needs_input_grad[1]:
            slope_BN = _slope(sorted_BND.float(), a_BN.float(), grad_BND.float(), ctx.temperature)
            grad_scores = torch.zeros_like(a_BN).scatter_(1, index_BN, slope_BN.to(a_BN.dtype))
        return grad_tokens, grad_scores, None, None


def _slope(sorted_BND: Tensor, a_BN: Tensor, grad_BND: Tensor, temperature: float) -> Tensor:
    """∂ Σ grad · (P · sorted) / ∂ a with P_ij = exp(−|a_i − a_j| / τ) / Σ_j …, block of rows by block of rows."""
    batch, slots = a_BN.shape
    rows = max(1, _ELEMENTS // (batch * slots))
    slope_BN = torch.zeros_like(a_BN)
    for start in range(0, slots, rows):
        block = slice(start, start + rows)
        apart_BRN = a_BN[:, block, None] - a_BN[:, None, :]
        p_BRN = (apart_BRN.abs() / -temperature).softmax(dim=-1)
        gain_BRN = grad_BND[:, block] @ sorted_BND.mT
        mean_BR1 = (p_BRN * gain_BRN).sum(dim=-1, keepdim=True)
        moved_BRN = gain_BRN.sub_(mean_BR1).mul_(p_BRN).mul_(apart_BRN.sign_()).div_(temperature)
        slope_BN[:, block] -= moved_BRN.sum(dim=-1)
        slope_BN += moved_BRN.sum(dim=1)
    return slope_BN
