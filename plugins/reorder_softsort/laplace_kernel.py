"""The kernel exp(−|a_i − a_j| / τ) of sorted scores, multiplied in chunks so that the N x N matrix never exists.

Between two chunks the kernel is an outer product: exp(−(a_i − a_j) / τ) is the way from i to the edge of its chunk,
times the way between the edges, times the way from the other edge to j. So a product with it is a small dense block
on the diagonal and two sums that travel from chunk to chunk, one towards lower scores and one towards higher ones: an
exponential recurrence forward and one backward, C slots at a time. Every exponent is at most 0, so that nothing
overflows at any temperature.

N slots, C slots of a chunk, M chunks (M · C ≥ N: the last one is filled up with zeros), F features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


class LaplaceKernel:
    """K = exp(−|a_i − a_j| / τ) for scores that fall from slot to slot. Computed in float64, kept in `dtype`."""

    def __init__(self, falling_N: Tensor, tau: float, dtype: torch.dtype, chunk: int | None = None) -> None:
        """falling_N: float64, each at most the one before it. chunk: C; the fastest on a CPU where it is left out."""
        self.size = falling_N.shape[0]
        self.chunk = chunk or max(16, math.isqrt(self.size) // 2)
        self.chunks = -(-self.size // self.chunk)
        filled_N = torch.cat([falling_N, falling_N[-1:].expand(self.chunks * self.chunk - self.size)])
        a_MC = filled_N.view(self.chunks, self.chunk)
        first_M, last_M = a_MC[:, 0], a_MC[:, -1]

        def decay(distance: Tensor) -> Tensor:
            return (distance / -tau).exp_()

        self.block_MCC = decay((a_MC[:, :, None] - a_MC[:, None, :]).abs_()).to(dtype)
        to_start_MC, to_end_MC = decay(first_M[:, None] - a_MC), decay(a_MC - last_M[:, None])
        self.edge_MC2 = torch.stack([to_start_MC, to_end_MC], dim=-1).to(dtype)
        # row: the chunk that is arrived at, column: an earlier chunk whose end the sum leaves from
        between_MM = decay((last_M[None, :] - first_M[:, None]).clamp_(min=0.0))
        self.between_MM = between_MM.tril_(-1).to(dtype)

    def split(self, value_NF: Tensor) -> Tensor:
        """[N, F] cut into chunks, [M, C, F], filled up with zeros."""
        missing = self.chunks * self.chunk - self.size
        filled = functional.pad(value_NF, (0, 0, 0, missing)) if missing else value_NF
        return filled.reshape(self.chunks, self.chunk, -1)

    def join(self, value_MCF: Tensor) -> Tensor:
        """`split` undone."""
        return value_MCF.reshape(self.chunks * self.chunk, -1)[: self.size]

    def carries(self, value_MCF: Tensor) -> Tensor:
        """What reaches each chunk's start from all earlier chunks, and its end from all later ones: [M, 2, F]."""
        edge_M2F = torch.bmm(self.edge_MC2.transpose(1, 2), value_MCF)
        from_later_MF = self.between_MM.T @ edge_M2F[:, 0]
        from_earlier_MF = self.between_MM @ edge_M2F[:, 1]
        return torch.stack([from_earlier_MF, from_later_MF], dim=1)

    def multiply(self, value_MCF: Tensor, carry_M2F: Tensor | None = None) -> Tensor:
        """K · value, [M, C, F]. carry_M2F: `carries(value)` where it is known already."""
        carry_M2F = self.carries(value_MCF) if carry_M2F is None else carry_M2F
        return torch.baddbmm(torch.bmm(self.block_MCC, value_MCF), self.edge_MC2, carry_M2F)

    def sides(self, value_MCF: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_{j < i} K_ij value_j and Σ_{j > i} K_ij value_j, [M, C, F] each."""
        carry_M2F = self.carries(value_MCF)
        earlier_MCF = torch.bmm(self.block_MCC.tril(-1), value_MCF)
        later_MCF = torch.bmm(self.block_MCC.triu(1), value_MCF)
        earlier_MCF.addcmul_(self.edge_MC2[..., :1], carry_M2F[:, :1])
        later_MCF.addcmul_(self.edge_MC2[..., 1:], carry_M2F[:, 1:])
        return earlier_MCF, later_MCF

    def earlier_less_later(self, value_MCF: Tensor) -> Tensor:
        """The difference of the two `sides`, [M, C, F]."""
        earlier_MCF, later_MCF = self.sides(value_MCF)
        return earlier_MCF.sub_(later_MCF)
