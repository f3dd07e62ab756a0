"""The Sinkhorn operator by row and column scalings, with its gradient written out.

N rows (slots) and columns (patches), G matrices, T iterations, X scores (already divided by the temperature).

Iteration t of the operator in log space finds one number for each row and one for each column (f_0 = g_0 = 0),

    f_t[i] = −log Σ_j exp(X[i, j] + g_{t−1}[j])        g_t[j] = −log Σ_i exp(X[i, j] + f_t[i])

and the result is S = exp(X[i, j] + f_T[i] + g_T[j]). With K = exp(X), u = exp f and v = exp g these are the
matrix-vector products u_t = 1 / K v_{t−1} and v_t = 1 / Kᵀ u_t (Sinkhorn & Knopp 1967): one exponential of N² numbers
in all, not two in each iteration. The chain rule through the same steps needs vectors only,

    ∂f = rows(∂S ∘ S) at t = T, else 0             ∂f[i] −= u_t[i] Σ_j K[i, j] v_t[j] ∂g_t[j]
    ∂g_T = columns(∂S ∘ S)                         ∂g_{t−1}[j] = −v_{t−1}[j] Σ_i K[i, j] u_t[i] ∂f_t[i]

and then ∂X = ∂S ∘ S − K ∘ Σ_t [ u_t (v_t ∘ ∂g_t)ᵀ + (u_t ∘ ∂f_t) v_{t−1}ᵀ ], one product of rank 2T.

Range. K is exp(X + a + b) with offsets a, b of rows and columns taken in ("absorbed", Schmitzer 2019, section 3.1), so
that no entry is above 1 and no row or column is empty. Entries below `floor` are lifted to it; they stay negligible
while u and v are below `reach`. Where an iteration leaves that range, u and v so far are absorbed into a new kernel and
the iteration is taken again from there: a *segment* is a run of iterations with one kernel. An iteration changes f and
g by at most log N, so a segment always gets somewhere, and the result is that of the log form for every range of
scores. Ordinary scores take one segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: So many rows of the gradient are finished at a time: no further N×N matrix, and what is read twice is still near.
_ROWS = 128


def sinkhorn(scores_GNN: Tensor, iterations: int) -> Tensor:
    """S^iterations(scores), [G, N, N] or [N, N], differentiable once (Mena et al. 2018, arXiv 1802.08665, eq. 1 and 2).

    Columns sum to one; rows do as iterations grow. Computed in float32, in float64 for float64 scores; returned so.
    The scores are to be finite. Keeps one N×N matrix for the backward pass (two where the scores need several
    segments), and one number for each row and column and iteration. `sinkhorn_reference` is the legible twin.
    """
    if scores_GNN.dtype != torch.float64:
        scores_GNN = scores_GNN.float()
    if scores_GNN.ndim == 2:
        return _Sinkhorn.apply(scores_GNN, iterations)  # type: ignore[no-any-return]
    return torch.stack([_Sinkhorn.apply(scores_NN, iterations) for scores_NN in scores_GNN])


@dataclass(frozen=True, slots=True)
class _Segment:
    """Iterations with one kernel exp(X + rows + columns): u [T, N] of each, v [T + 1, N] with the one before them."""

    rows_N: Tensor
    columns_N: Tensor
    u_TN: Tensor
    v_TN: Tensor

    def __len__(self) -> int:
        return len(self.u_TN)


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores_NN: Tensor, iterations: int) -> Tensor:
        segments, kernel_NN = _iterate(scores_NN, iterations)
        last = segments[-1]
        ctx.lengths = [len(segment) for segment in segments]
        vectors = [part for s in segments for part in (s.rows_N, s.columns_N, s.u_TN, s.v_TN)]
        # One segment needs no other kernel than its own, so the scores need not stay.
        kept = (kernel_NN,) if len(segments) == 1 else (kernel_NN, scores_NN)
        ctx.save_for_backward(*vectors, *kept)
        return (kernel_NN * last.u_TN[-1, :, None]).mul_(last.v_TN[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NN: Tensor) -> tuple[Tensor, None]:
        saved, count = ctx.saved_tensors, len(ctx.lengths)
        segments = [_Segment(*saved[4 * k : 4 * k + 4]) for k in range(count)]
        kernel_NN, last = saved[4 * count], segments[-1]
        out_NN = (grad_NN * kernel_NN).mul_(last.u_TN[-1, :, None]).mul_(last.v_TN[-1])
        grad_f_N, grad_g_N = out_NN.sum(1), out_NN.sum(0)
        for number in reversed(range(count)):
            segment = segments[number]
            if number < count - 1:
                kernel_NN = _kernel(saved[4 * count + 1], segment.rows_N, segment.columns_N)
            grad_f_N, grad_g_N = _differentiate(segment, kernel_NN, grad_f_N, grad_g_N, out_NN)
        return out_NN, None


def _iterate(scores_NN: Tensor, iterations: int) -> tuple[list[_Segment], Tensor]:
    """All iterations in as few segments as the range allows, and the kernel of the last one."""
    rows_N = -scores_NN.amax(1)
    kernel_NN = scores_NN + rows_N[:, None]
    columns_N = -kernel_NN.amax(0)
    kernel_NN = _exponential(kernel_NN.add_(columns_N))
    v_N = (-columns_N).exp()  # g_0 = 0, less what is absorbed
    segments: list[_Segment] = []
    left = iterations
    while True:
        u_TN, v_TN = _scalings(kernel_NN, v_N, left)
        done = _within_reach(u_TN, v_TN)
        segments.append(_Segment(rows_N, columns_N, u_TN[:done], v_TN[: done + 1]))
        left -= done
        if not left:
            return segments, kernel_NN
        rows_N, columns_N = rows_N + u_TN[done - 1].log(), columns_N + v_TN[done].log()
        kernel_NN = _kernel(scores_NN, rows_N, columns_N)
        v_N = torch.ones_like(rows_N)


def _scalings(kernel_NN: Tensor, v_N: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """u_1 … u_T [T, N] and v_0 … v_T [T + 1, N], whatever their range."""
    size = v_N.numel()
    u_TN, v_TN = v_N.new_empty(iterations, size), v_N.new_empty(iterations + 1, size)
    v_TN[0] = v_N
    transposed_NN = kernel_NN.t()
    for u_N, v_before_N, v_after_N in zip(u_TN, v_TN[:-1], v_TN[1:], strict=True):
        torch.mv(kernel_NN, v_before_N, out=u_N).reciprocal_()
        torch.mv(transposed_NN, u_N, out=v_after_N).reciprocal_()
    return u_TN, v_TN


def _within_reach(u_TN: Tensor, v_TN: Tensor) -> int:
    """How many of these iterations are within the range of the kernel, at least one (one look for all of them)."""
    reach = _reach(u_TN.dtype)
    u_T, v_T = u_TN.amax(1).clamp_(min=1.0), v_TN[1:].amax(1).clamp_(min=1.0)
    inside_T = (u_T.log_() + v_T.log_() <= reach).cpu()  # numbers that are not finite are outside
    outside = (~inside_T).nonzero()
    return len(inside_T) if not len(outside) else max(1, int(outside[0]))


def _differentiate(
    segment: _Segment, kernel_NN: Tensor, grad_f_N: Tensor, grad_g_N: Tensor, out_NN: Tensor
) -> tuple[Tensor, Tensor]:
    """Back through one segment: subtracts its part of ∂X from `out_NN`; returns ∂f and ∂g of the segment before."""
    u_TN, v_TN = segment.u_TN, segment.v_TN
    transposed_NN = kernel_NN.t()
    by_row, by_column = torch.empty_like(u_TN), torch.empty_like(u_TN)  # u_t ∘ ∂f_t and v_t ∘ ∂g_t
    nothing_N = torch.zeros_like(grad_f_N)
    for t in reversed(range(len(segment))):
        torch.mul(v_TN[t + 1], grad_g_N, out=by_column[t])
        grad_f_N = torch.addcmul(grad_f_N, u_TN[t], torch.mv(kernel_NN, by_column[t]), value=-1)
        torch.mul(u_TN[t], grad_f_N, out=by_row[t])
        grad_g_N = torch.addcmul(nothing_N, v_TN[t], torch.mv(transposed_NN, by_row[t]), value=-1)
        grad_f_N = nothing_N
    left_NR, right_RN = torch.cat([u_TN, by_row]).t().contiguous(), torch.cat([by_column, v_TN[:-1]])
    for start in range(0, len(out_NN), _ROWS):
        some = slice(start, start + _ROWS)
        out_NN[some].addcmul_(kernel_NN[some], left_NR[some] @ right_RN, value=-1)
    return grad_f_N, grad_g_N


def _kernel(scores_NN: Tensor, rows_N: Tensor, columns_N: Tensor) -> Tensor:
    return _exponential((scores_NN + rows_N[:, None]).add_(columns_N))


def _exponential(logarithm_NN: Tensor) -> Tensor:
    """exp in place, not below `floor`: numbers too small to be normal would slow every product down."""
    return logarithm_NN.clamp_(min=_floor(logarithm_NN.dtype)).exp_()


def _floor(dtype: torch.dtype) -> float:
    """The logarithm of the least entry of a kernel: e⁷ times the least normal number (−80 in float32)."""
    return math.log(torch.finfo(dtype).tiny) + 7.0


def _reach(dtype: torch.dtype) -> float:
    """How large log u + log v may be (48 in float32): lifted entries then add less than N · eps² to a sum of one."""
    return -_floor(dtype) + 2.0 * math.log(torch.finfo(dtype).eps)
