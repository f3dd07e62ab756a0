"""State space duality in chunks: matrix products inside a chunk, a short recurrence of states between chunks.

The recurrence of Mamba-2 (Dao & Gu 2024, arXiv 2405.21060, equation 16 with the discretisation of Mamba-1), for a head:

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t^T          y_t = C_t^T h_t

and its block decomposition (their section 6, listing 1). Inside a chunk, with s_t the sum of dt A up to step t:

    y_t = sum_{r < t} exp(s_t - s_r) (C_t . B_r) dt_r x_r  +  exp(s_t) C_t^T h        (h: the state before the chunk)

The step's own term, r = t, is left to the caller, who adds it with the skip (see `state_space_dual`). That is not only
a pass less: the gradient of s_t is dy_t . y_t - dt_t x_t . dx_t, where the own terms cancel and would leave only their
rounding errors.

B images, L steps, H heads, P channels of a head, N states; K chunks of T steps; G groups of heads that share B and C,
R heads in each (H = G R), E = R P channels of a group side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_LOG2_E = 1.0 / math.log(2.0)  # exp(x) is 2^(x log2 e): torch's exp2 is the faster of the two

_BLOCK = 1 << 18
"""How many numbers the largest scratch of a block may have on a CPU: 1 MiB in float32, so that passes stay in cache."""


@torch.library.custom_op("reorder_mamba::dual", mutates_args=())
def dual(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """y [B, L, H, P] without the steps' own terms, and the state before each chunk [B, K, G, N, E].

    All of one dtype, float32 or float64; `chunk`: the most steps of a chunk. An operator of its own, so that
    torch.compile takes it as one node. Kept for the backward pass are the inputs, y and the states before chunks.
    """
    B, L, H, P = x_BLHP.shape
    G, N = B_BLGN.shape[2:]
    y_BLHP = x_BLHP.new_empty(B, L, H, P)
    start_BKGNE = x_BLHP.new_empty(B, chunk_count(L, chunk), G, N, H // G * P)
    for images, segments in _blocks(x_BLHP, N, chunk):
        h_BGNE = torch.zeros_like(start_BKGNE[images, 0])
        for steps, chunks in segments:
            cut = _cut(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, images, steps, chunks)
            y_BLHP[images, steps], start_BKGNE[images, chunks], h_BGNE = _forward(cut, h_BGNE)
    return y_BLHP, start_BKGNE


@torch.library.custom_op("reorder_mamba::dual_backward", mutates_args=())
def dual_backward(
    dy_BLHP: Tensor,
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    y_BLHP: Tensor,
    start_BKGNE: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B and C from that of y."""
    inputs = (x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN)
    dx, ddt, dA, dB, dC = (torch.zeros_like(one, memory_format=torch.contiguous_format) for one in inputs)
    for images, segments in _blocks(x_BLHP, B_BLGN.shape[-1], chunk):
        dh_BGNE = torch.zeros_like(start_BKGNE[images, 0])
        for steps, chunks in reversed(segments):
            cut = _cut(*inputs, images, steps, chunks)
            here = images, steps
            gradients = _backward(cut, start_BKGNE[images, chunks], dy_BLHP[here], y_BLHP[here], dh_BGNE)
            dx[here], ddt[here], share_H, dB[here], dC[here], dh_BGNE = gradients
            dA += share_H
    return dx, ddt, dA, dB, dC


def dual_written_out(x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, chunk: int) -> Tensor:
    """The y of `dual` in torch's own operators, all images at once: for a graph that is to run without this package."""
    B, L, H, P = x_BLHP.shape
    G, N = B_BLGN.shape[2:]
    h_BGNE = x_BLHP.new_zeros(B, G, N, H // G * P)
    parts = []
    for steps, chunks in _segments(L, chunk, L):
        cut = _cut(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, slice(None), steps, chunks)
        y_BLHP, _, h_BGNE = _forward(cut, h_BGNE)
        parts.append(y_BLHP)
    return torch.cat(parts, dim=1)


def chunk_count(L: int, chunk: int) -> int:
    """K: chunks are all of one length, as even as L allows; only the last may be shorter."""
    T = _steps(L, chunk)
    return -(-L // T)


class _Cut(NamedTuple):
    """A block of the inputs, cut into chunks; exponents are of 2.

    s: the running sum of dt A in a chunk, rounded; up = 2^(what rounding took from s), down = 1 / up. So 2^(s_t - s_r)
    up_t down_r is exact to a rounding even where decay is fast and s large. left: 2^(s_T - s_t), what is left of a
    step's input at the end of its chunk. passed: 2^(s_T), what is left of the state before it.
    """

    x_BKTHP: Tensor
    dt_BKTH: Tensor
    A_H: Tensor
    B_BKGTN: Tensor
    C_BKGTN: Tensor
    s_BKTH: Tensor
    up_BKTH: Tensor
    down_BKTH: Tensor
    left_BKTH: Tensor
    passed_BKG1E: Tensor


def _cut(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    images: slice,
    steps: slice,
    chunks: slice,
) -> _Cut:
    K = chunks.stop - chunks.start
    x, dt, B, C = (one[images, steps].unflatten(1, (K, -1)) for one in (x_BLHP, dt_BLH, B_BLGN, C_BLGN))
    G, P = B.shape[3], x.shape[-1]
    wide = dt if dt.device.type == "mps" else dt.double()  # which has no float64
    exact_BKTH = (wide * (A_H * _LOG2_E)).cumsum(2)
    s = exact_BKTH.to(dt.dtype)
    lost = (exact_BKTH - s).to(dt.dtype)
    left = torch.exp2((exact_BKTH[:, :, -1:] - exact_BKTH).to(dt.dtype))
    passed = torch.exp2(s[:, :, -1]).unflatten(2, (G, -1)).repeat_interleave(P, dim=-1).unsqueeze(3)
    B, C = (one.transpose(2, 3).contiguous() for one in (B, C))
    return _Cut(x, dt, A_H, B, C, s, torch.exp2(lost), torch.exp2(-lost), left, passed)


def _forward(cut: _Cut, h_BGNE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y [B, K·T, H, P], the states before the chunks [B, K, G, N, E], and the state after the last."""
    H, G = cut.x_BKTHP.shape[3], cut.B_BKGTN.shape[2]
    input_XTP = _by_head(cut.x_BKTHP, cut.down_BKTH * cut.dt_BKTH)
    weight_BKGRTT = _decays(cut.s_BKTH).unflatten(2, (G, -1))
    weight_BKGRTT *= torch.matmul(cut.C_BKGTN, cut.B_BKGTN.mT).unsqueeze(3)
    inside_XTP = torch.bmm(weight_BKGRTT.flatten(0, 3), input_XTP)
    written_BKGNE = torch.matmul(cut.B_BKGTN.mT, _by_group(cut.x_BKTHP, cut.left_BKTH * cut.dt_BKTH, G))
    starts = []
    for written_BGNE, passed_BG1E in zip(written_BKGNE.unbind(1), cut.passed_BKG1E.unbind(1), strict=True):
        starts.append(h_BGNE)
        h_BGNE = torch.addcmul(written_BGNE, h_BGNE, passed_BG1E)
    start_BKGNE = torch.stack(starts, dim=1)
    y_BKTHP = _ungrouped(torch.matmul(cut.C_BKGTN, start_BKGNE), H)
    y_BKTHP *= torch.exp2(cut.s_BKTH).unsqueeze(-1)
    y_BKTHP.addcmul_(_unheaded(inside_XTP, cut.s_BKTH), cut.up_BKTH.unsqueeze(-1))
    return y_BKTHP.flatten(1, 2), start_BKGNE, h_BGNE


def _backward(
    cut: _Cut, start_BKGNE: Tensor, dy_BLHP: Tensor, y_BLHP: Tensor, dh_BGNE: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C and of the state before the block; dh: of the state after it."""
    x, dt, B, C = cut.x_BKTHP, cut.dt_BKTH, cut.B_BKGTN, cut.C_BKGTN
    K, (H, P) = x.shape[1], x.shape[3:]
    G = B.shape[2]
    dy, y = (one.unflatten(1, (K, -1)) for one in (dy_BLHP, y_BLHP))

    # Inside chunks.
    dy_XTP = _by_head(dy, cut.up_BKTH)
    dweight_XTT = torch.bmm(dy_XTP, _by_head(x, cut.down_BKTH * dt).mT)
    decay_BKHTT = _decays(cut.s_BKTH)
    dmixing_BKGTT = dweight_XTT.mul_(decay_BKHTT.flatten(0, 2)).view_as(decay_BKHTT).unflatten(2, (G, -1)).sum(3)
    weight_BKGRTT = decay_BKHTT.unflatten(2, (G, -1)).mul_(torch.matmul(C, B.mT).unsqueeze(3))
    dinput_XTP = torch.bmm(weight_BKGRTT.flatten(0, 3).mT, dy_XTP)

    # Between chunks: adjoint[k] is the gradient of the state after chunk k.
    dread_BKGTE = _by_group(dy, torch.exp2(cut.s_BKTH), G)
    dstart_BKGNE = torch.matmul(C.mT, dread_BKGTE)
    adjoint_BKGNE = torch.empty_like(dstart_BKGNE)
    for k in range(K - 1, -1, -1):
        adjoint_BKGNE[:, k] = dh_BGNE
        dh_BGNE = torch.addcmul(dstart_BKGNE[:, k], dh_BGNE, cut.passed_BKG1E[:, k])
    kept_BKTHP = _by_group(x, cut.left_BKTH * dt, G)
    dB = torch.matmul(kept_BKTHP, adjoint_BKGNE.mT).add_(torch.matmul(dmixing_BKGTT.mT, C))
    dC = torch.matmul(dread_BKGTE, start_BKGNE.mT).add_(torch.matmul(dmixing_BKGTT, B))
    dinput_BKTHP = _ungrouped(torch.matmul(B, adjoint_BKGNE), H).mul_(cut.left_BKTH.unsqueeze(-1))

    # Of the sums s: each step's reading less its writing, and at a chunk's last step all that the state after it gives.
    at_end_BKH = (dt * _dot(dinput_BKTHP, x)).sum(2)
    at_end_BKH += (adjoint_BKGNE * start_BKGNE).sum(3, keepdim=True).mul_(cut.passed_BKG1E).view(-1, K, H, P).sum(-1)
    dinput_BKTHP.addcmul_(_unheaded(dinput_XTP, dt), cut.down_BKTH.unsqueeze(-1))
    ddt = _dot(dinput_BKTHP, x)
    ds = _dot(dy, y) - dt * ddt
    ds[:, :, -1] += at_end_BKH
    drate = ds.flip(2).cumsum(2).flip(2)
    ddt.addcmul_(drate, cut.A_H)
    dx = dinput_BKTHP.mul_(dt.unsqueeze(-1))
    dA_H = (drate * dt).sum((0, 1, 2))
    dB, dC = (one.transpose(2, 3).flatten(1, 2) for one in (dB, dC))
    return dx.flatten(1, 2), ddt.flatten(1, 2), dA_H, dB, dC, dh_BGNE


def _decays(s_BKTH: Tensor) -> Tensor:
    """2^(s_t - s_r) for r < t and 0 elsewhere, [B, K, H, T, T]."""
    s_BKHT = s_BKTH.transpose(2, 3).contiguous()
    T = s_BKHT.shape[-1]
    exponent_BKHTT = s_BKHT.unsqueeze(-1) - s_BKHT.unsqueeze(-2)
    return exponent_BKHTT.add_(s_BKHT.new_full((T, T), -math.inf).triu_()).exp2_()


def _by_head(tensor_BKTHP: Tensor, scale_BKTH: Tensor) -> Tensor:
    """The scaled tensor with a matrix [T, P] for each head, [B·K·H, T, P]."""
    B, K, T, H, P = tensor_BKTHP.shape
    factors = tensor_BKTHP.transpose(2, 3), scale_BKTH.transpose(2, 3).unsqueeze(-1)
    if torch.compiler.is_exporting():  # there autograd looks on, and refuses to write into a given tensor
        return torch.mul(*factors).flatten(0, 2)
    scaled = tensor_BKTHP.new_empty(B, K, H, T, P)
    torch.mul(*factors, out=scaled)
    return scaled.flatten(0, 2)


def _unheaded(tensor_XTP: Tensor, like_BKTH: Tensor) -> Tensor:
    """From `_by_head`'s order to [B, K, T, H, P]."""
    B, K, T, H = like_BKTH.shape
    return tensor_XTP.view(B, K, H, T, -1).transpose(2, 3)


def _by_group(tensor_BKTHP: Tensor, scale_BKTH: Tensor, G: int) -> Tensor:
    """The scaled tensor with a matrix [T, E] for each group, [B, K, G, T, E]."""
    scaled = tensor_BKTHP * scale_BKTH.unsqueeze(-1)
    return scaled.unflatten(3, (G, -1)).flatten(4, 5).transpose(2, 3)


def _ungrouped(tensor_BKGTE: Tensor, H: int) -> Tensor:
    """From `_by_group`'s order to [B, K, T, H, P], contiguous."""
    B, K, _, T, _ = tensor_BKGTE.shape
    return tensor_BKGTE.transpose(2, 3).contiguous().view(B, K, T, H, -1)


def _dot(one_BKTHP: Tensor, other_BKTHP: Tensor) -> Tensor:
    return (one_BKTHP * other_BKTHP).sum(-1)


def _steps(L: int, chunk: int) -> int:
    """T: L cut into as few chunks as can be, and as evenly: 196 steps are four times 49, not three times 64 and 4."""
    return -(-L // -(-L // chunk))


def _segments(L: int, chunk: int, most: int) -> list[tuple[slice, slice]]:
    """Steps and chunks of each segment: runs of at most `most` whole chunks, and the shorter last one by itself."""
    T = _steps(L, chunk)
    whole, rest = divmod(L, T)
    cut = [(k, min(k + most, whole)) for k in range(0, whole, most)] + [(whole, whole + 1)] * bool(rest)
    return [(slice(first * T, min(last * T, L)), slice(first, last)) for first, last in cut]


def _blocks(x_BLHP: Tensor, N: int, chunk: int) -> Iterator[tuple[slice, list[tuple[slice, slice]]]]:
    """Images to take together, and the segments of their steps. On a CPU small enough to stay in cache, else all."""
    B, L, H, P = x_BLHP.shape
    images, most = B, L
    if x_BLHP.device.type == "cpu":
        scratch = H * max(_steps(L, chunk), N, P)  # of one step
        images = max(1, _BLOCK // (L * scratch))
        most = max(1, _BLOCK // (_steps(L, chunk) * scratch))
    for first in range(0, B, images):
        yield slice(first, min(first + images, B)), _segments(L, chunk, most)


@dual.register_fake
def _(x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLGN: Tensor, C_BLGN: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    B, L, H, P = x_BLHP.shape
    G, N = B_BLGN.shape[2:]
    return x_BLHP.new_empty(B, L, H, P), x_BLHP.new_empty(B, chunk_count(L, chunk), G, N, H // G * P)


@dual_backward.register_fake
def _(
    dy_BLHP: Tensor,
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    y_BLHP: Tensor,
    start_BKGNE: Tensor,
    chunk: int,
) -> tuple[Tensor, ...]:
    inputs = (x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN)
    return tuple(torch.empty_like(one, memory_format=torch.contiguous_format) for one in inputs)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.chunk = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, dy_BLHP: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy_BLHP is None:
        return (None,) * 6
    with torch.autocast(dy_BLHP.device.type, enabled=False):
        return (*dual_backward(dy_BLHP, *ctx.saved_tensors, ctx.chunk), None)


dual.register_autograd(_gradients, setup_context=_setup)


@register_flop_formula(torch.ops.reorder_mamba.dual)
def dual_flops(x: Any, dt: Any, A: Any, B: Any, C: Any, chunk: int, *_: Any, **__: Any) -> int:
    """The matrix products: C B of a chunk's steps, those times x, and the states in and out; a multiply-add is two."""
    images, L, H, P = x
    G, N = B[2:]
    T = -(-L // chunk_count(L, chunk))
    return 2 * images * L * (T * G * N + T * H * P + 2 * H * P * N)
