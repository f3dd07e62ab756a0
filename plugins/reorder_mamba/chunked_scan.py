"""The selective scan in pure torch, fast on a CPU: chunks of steps, states recomputed in the backward pass.

The recurrence (Gu & Dao 2023, equation 2a with the discretisation of their section 3.6), for each channel d, state n:

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t          y_t = sum_n C_t h_t

and its adjoint, from the last step to the first:

    g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1}

B images, L steps, D channels, N states, T steps of one chunk. Only the state before each chunk is kept
(B×L×D×N / T numbers); a chunk's states live in buffers that the next chunk overwrites.

On a CPU with a C++ compiler the same chunks run as a compiled kernel (`compiled_scan`). The form here is the eager one,
for every other machine and device. Three habits make it fast. D stands innermost, so that every operation runs over
long contiguous rows. Steps are views made by one `unbind`, changed in place. And exp(x) is 2^(x log2 e): torch's exp2
runs several times faster.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from reorder_mamba import compiled_scan
from reorder_mamba.compiled_scan import CHUNK

_LOG2_E = 1.0 / math.log(2.0)

_TINY = 1e-25
"""Added to dy in float32, far below any gradient's rounding. Where only the last token is read, dy is 0 before it,
and the adjoints of fast-decaying states would sink into denormal numbers, which processors handle far slower."""


@torch.library.custom_op("reorder_mamba::scan", mutates_args=())
def scan(u_BLD: Tensor, delta_BLD: Tensor, A_ND: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> tuple[Tensor, Tensor]:
    """y [B, L, D], and the state before each chunk [chunks, B, N, D]. All of one dtype, float32 or float64.

    An operator of its own, so that torch.compile takes it as one node instead of unrolling its loops.
    """
    if compiled_scan.runs_for(u_BLD):
        return compiled_scan.forward(u_BLD, delta_BLD, A_ND, B_BLN, C_BLN)
    u_LBD, delta_LBD, B_LBN, C_LBN = (tensor.transpose(0, 1) for tensor in (u_BLD, delta_BLD, B_BLN, C_BLN))
    L, B, D = u_LBD.shape
    N = A_ND.shape[0]
    A_ND = A_ND.contiguous()
    rate_ND = A_ND * _LOG2_E
    y_LBD = u_BLD.new_empty(L, B, D)
    start_KBND = u_BLD.new_empty(_chunks(L), B, N, D)
    decay_TBND, state_TBND = _scratch(u_BLD, 2, (min(CHUNK, L), B, N, D))
    h_BND = u_BLD.new_zeros(B, N, D)
    for k, steps in enumerate(_slices(L)):
        start_KBND[k] = h_BND
        input_tBD = delta_LBD[steps] * u_LBD[steps]
        t = input_tBD.shape[0]
        states = _states(
            delta_LBD[steps], input_tBD, rate_ND, B_LBN[steps], start_KBND[k], decay_TBND[:t], state_TBND[:t]
        )
        C_row = C_LBN[steps].reshape(t * B, 1, N)
        torch.bmm(C_row, state_TBND[:t].view(t * B, N, D), out=y_LBD[steps].view(t * B, 1, D))
        h_BND = states[-1]
    return y_LBD.transpose(0, 1).contiguous(), start_KBND


@torch.library.custom_op("reorder_mamba::scan_backward", mutates_args=())
def scan_backward(
    dy_BLD: Tensor, u_BLD: Tensor, delta_BLD: Tensor, A_ND: Tensor, B_BLN: Tensor, C_BLN: Tensor, start_KBND: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta [B, L, D], A [N, D], B and C [B, L, N] from that of y."""
    if compiled_scan.runs_for(u_BLD):
        return compiled_scan.backward(dy_BLD, u_BLD, delta_BLD, A_ND, B_BLN, C_BLN, start_KBND)
    dy_LBD, u_LBD, delta_LBD, B_LBN, C_LBN = (
        tensor.transpose(0, 1) for tensor in (dy_BLD, u_BLD, delta_BLD, B_BLN, C_BLN)
    )
    L, B, D = u_LBD.shape
    N = A_ND.shape[0]
    A_ND = A_ND.contiguous()
    rate_ND = A_ND * _LOG2_E
    du_LBD, ddelta_LBD = u_BLD.new_empty(L, B, D), u_BLD.new_empty(L, B, D)
    dB_LBN, dC_LBN = u_BLD.new_empty(L, B, N), u_BLD.new_empty(L, B, N)
    tiny = _TINY if u_BLD.dtype == torch.float32 else 0.0
    dA_BND, carry_BND = u_BLD.new_zeros(B, N, D), u_BLD.new_zeros(B, N, D)
    decay_TBND, state_TBND, g_TBND = _scratch(u_BLD, 3, (min(CHUNK, L), B, N, D))
    for k, steps in reversed(list(enumerate(_slices(L)))):
        delta_tBD = delta_LBD[steps]
        t = delta_tBD.shape[0]
        # dy and delta·u side by side: two rows make the products below a matrix product, which is faster than a row's.
        pair_tB2D = torch.stack((dy_LBD[steps] + tiny, delta_tBD * u_LBD[steps]), dim=2)
        dy_tBD, input_tBD = pair_tB2D.unbind(2)
        pair = pair_tB2D.view(t * B, 2, D)
        decay, state, g = decay_TBND[:t], state_TBND[:t], g_TBND[:t]
        _states(delta_tBD, input_tBD, rate_ND, B_LBN[steps], start_KBND[k], decay, state)
        torch.mul(dy_tBD.unsqueeze(2), C_LBN[steps].unsqueeze(3), out=g)
        decays = _adjoints(decay, g, carry_BND)
        dC_LBN[steps] = torch.bmm(pair, state.view(t * B, N, D).mT)[:, 0].view(t, B, N)
        dB_LBN[steps] = torch.bmm(pair, g.view(t * B, N, D).mT)[:, 1].view(t, B, N)
        dinput_tBD = torch.bmm(B_LBN[steps].reshape(t * B, 1, N), g.view(t * B, N, D)).view(t, B, D)
        # decay now holds decay_t g_t; with the state before the step it is the gradient of delta_t A.
        decay[1:].mul_(state[:-1])
        decays[0].mul_(start_KBND[k])
        for dexponent_BND, delta_B1D in zip(decays, delta_tBD.unsqueeze(2).unbind(0), strict=True):
            dA_BND.addcmul_(dexponent_BND, delta_B1D)
        torch.sum(decay.mul_(A_ND), dim=2, out=ddelta_LBD[steps])
        ddelta_LBD[steps].addcmul_(dinput_tBD, u_LBD[steps])
        torch.mul(dinput_tBD, delta_tBD, out=du_LBD[steps])
    return (
        du_LBD.transpose(0, 1).contiguous(),
        ddelta_LBD.transpose(0, 1).contiguous(),
        dA_BND.sum(0),
        dB_LBN.transpose(0, 1).contiguous(),
        dC_LBN.transpose(0, 1).contiguous(),
    )


class _Kept(threading.local):
    """Scratch memory of each thread, kept between calls: a fresh buffer of megabytes costs its page faults anew."""

    def __init__(self) -> None:
        self.flat: dict[tuple[torch.dtype, int], Tensor] = {}


_kept = _Kept()


def _scratch(like: Tensor, count: int, shape: tuple[int, ...]) -> list[Tensor]:
    """`count` buffers whose content is arbitrary. On a CPU they are the same memory in every call of one thread."""
    if like.device.type != "cpu":
        return [like.new_empty(shape) for _ in range(count)]
    numel = math.prod(shape)
    for place in range(count):
        flat = _kept.flat.get((like.dtype, place))
        if flat is None or flat.numel() < numel:
            # Kept from inference mode, it must still be writable in a training step.
            with torch.inference_mode(False):
                _kept.flat[like.dtype, place] = torch.empty(numel, dtype=like.dtype)
    return [_kept.flat[like.dtype, place][:numel].view(shape) for place in range(count)]


def _chunks(L: int) -> int:
    return -(-L // CHUNK)


def _slices(L: int) -> list[slice]:
    return [slice(first, min(first + CHUNK, L)) for first in range(0, L, CHUNK)]


def _states(
    delta_tBD: Tensor,
    input_tBD: Tensor,
    rate_ND: Tensor,
    B_tBN: Tensor,
    before_BND: Tensor,
    decay_tBND: Tensor,
    state_tBND: Tensor,
) -> tuple[Tensor, ...]:
    """Fill the buffers with exp(delta A) and the states of one chunk; the states as views, one a step."""
    torch.mul(delta_tBD.unsqueeze(2), rate_ND, out=decay_tBND).exp2_()
    torch.mul(input_tBD.unsqueeze(2), B_tBN.unsqueeze(3), out=state_tBND)
    states = state_tBND.unbind(0)
    for decay_BND, state_BND in zip(decay_tBND.unbind(0), states, strict=True):
        state_BND.addcmul_(decay_BND, before_BND)
        before_BND = state_BND
    return states


def _adjoints(decay_tBND: Tensor, g_tBND: Tensor, carry_BND: Tensor) -> tuple[Tensor, ...]:
    """Turn C dy (in g) into the adjoints in place, and decay into decay·g; carry goes to the chunk before."""
    decays, adjoints = decay_tBND.unbind(0), g_tBND.unbind(0)
    adjoints[-1].add_(carry_BND)
    for t in range(len(adjoints) - 1, 0, -1):
        decays[t].mul_(adjoints[t])
        adjoints[t - 1].add_(decays[t])
    decays[0].mul_(adjoints[0])
    carry_BND.copy_(decays[0])
    return decays


@scan.register_fake
def _(u_BLD: Tensor, delta_BLD: Tensor, A_ND: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> tuple[Tensor, Tensor]:
    B, L, D = u_BLD.shape
    return u_BLD.new_empty(B, L, D), u_BLD.new_empty(_chunks(L), B, A_ND.shape[0], D)


@scan_backward.register_fake
def _(
    dy_BLD: Tensor, u_BLD: Tensor, delta_BLD: Tensor, A_ND: Tensor, B_BLN: Tensor, C_BLN: Tensor, start_KBND: Tensor
) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(like.shape) for like in (u_BLD, u_BLD, A_ND, B_BLN, B_BLN))


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _gradients(ctx: Any, dy_BLD: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy_BLD is None:
        return (None,) * 5
    with torch.autocast(dy_BLD.device.type, enabled=False):
        return scan_backward(dy_BLD, *ctx.saved_tensors)


scan.register_autograd(_gradients, setup_context=_setup)


@register_flop_formula(torch.ops.reorder_mamba.scan)
def scan_flops(u: Any, delta: Any, A: Any, B: Any, C: Any, *_: Any, **__: Any) -> int:
    """9 operations for each state of each channel and step, as VMamba counts them."""
    return 9 * math.prod(u) * A[0]
