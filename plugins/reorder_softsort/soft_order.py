"""Tokens read in a soft order: the hard order as the value, the soft order's gradient (straight-through).

B images, N patches or slots, D width, G groups with an order each, F features (some images times width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Rows(Protocol):
    """A relaxation for one vector of falling scores, built as `rows(falling_N, tau, dtype)`; x in the hard order.

    slab: about how many token values are worked on at once, so that they stay in cache and memory does not grow with B.
    """

    slab: int

    def apply(self, x_NF: Tensor) -> Tensor: ...
    def backward(self, x_NF: Tensor, grad_NF: Tensor) -> Tensor: ...
    def score_gradient(self) -> Tensor: ...


MakeRows = Callable[[Tensor, float, torch.dtype], Rows]


@dataclass(frozen=True)
class SoftOrder:
    """One order, sorted along a line of slots.

    falling_N: float64, the sorted scores along the line, with gradient. source_N: the patch of each score, target_N:
    the slot that the place on the line stands for (0 … N−1 where the line is the sequence itself), int64.
    """

    falling_N: Tensor
    source_N: Tensor
    target_N: Tensor

    @property
    def perm_N(self) -> Tensor:
        """The hard order, `perm[slot] = patch`."""
        return torch.empty_like(self.source_N).scatter_(0, self.target_N, self.source_N)


def read(order: SoftOrder, tokens_BND: Tensor, tau: float, make: MakeRows, straight_through: bool = True) -> Tensor:
    """Tokens in slot order, [B, N, D], with gradient to the tokens and to the scores of the order.

    straight_through: the value is the hard order's, and only the gradient the soft order's. tau 0 is the hard order
    itself, without a gradient to the scores.
    """
    if tau <= 0.0:
        return tokens_BND.index_select(1, order.perm_N)
    result: Tensor = _Read.apply(order.falling_N, tokens_BND, order, tau, make, straight_through)
    return result


class _Read(torch.autograd.Function):
    """Gathers the tokens of some images along the line, hands them to the relaxation, and scatters what comes back."""

    @staticmethod
    def forward(
        ctx: Any, falling_N: Tensor, tokens_BND: Tensor, order: SoftOrder, tau: float, make: MakeRows, hard: bool
    ) -> Tensor:
        # the scores are an argument of their own, so that autograd sees them; the order is kept without them
        ctx.save_for_backward(falling_N, tokens_BND, order.source_N, order.target_N)
        ctx.tau, ctx.make = tau, make
        if hard:
            return tokens_BND.index_select(1, order.perm_N)
        rows = make(falling_N.detach().double(), tau, _computed_in(tokens_BND))
        y_BND = torch.empty_like(tokens_BND)
        for images in _slabs(tokens_BND, rows.slab):
            y_NF = rows.apply(_along(tokens_BND[images], order.source_N))
            _put(y_BND, images, order.target_N, y_NF)
        return y_BND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BND: Tensor) -> tuple[Tensor | None, ...]:
        falling_N, tokens_BND, source_N, target_N = ctx.saved_tensors
        rows = ctx.make(falling_N.double(), ctx.tau, _computed_in(tokens_BND))
        grad_tokens_BND = torch.empty_like(tokens_BND)
        for images in _slabs(tokens_BND, rows.slab):
            x_NF, grad_NF = _along(tokens_BND[images], source_N), _along(grad_BND[images], target_N)
            _put(grad_tokens_BND, images, source_N, rows.backward(x_NF, grad_NF))
        return rows.score_gradient().to(falling_N.dtype), grad_tokens_BND, None, None, None, None


def _computed_in(tokens_BND: Tensor) -> torch.dtype:
    """Half precision is too coarse for sums over a sequence."""
    return torch.float64 if tokens_BND.dtype == torch.float64 else torch.float32


def _slabs(tokens_BND: Tensor, slab: int) -> Iterator[slice]:
    batch, n, width = tokens_BND.shape
    images = max(1, slab // max(1, n * width))
    for start in range(0, batch, images):
        yield slice(start, min(batch, start + images))


def _along(tokens_BND: Tensor, index_N: Tensor) -> Tensor:
    """Tokens gathered along the line, [N, F]."""
    gathered_BND = tokens_BND.index_select(1, index_N).to(_computed_in(tokens_BND))
    return gathered_BND.transpose(0, 1).reshape(len(index_N), -1)


def _put(into_BND: Tensor, images: slice, index_N: Tensor, value_NF: Tensor) -> None:
    """`_along` undone."""
    part_BND = into_BND[images]
    value_BND = value_NF.view(len(index_N), part_BND.shape[0], -1).transpose(0, 1)
    part_BND.index_copy_(1, index_N, value_BND.to(into_BND.dtype))
