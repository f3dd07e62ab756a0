"""The selective scan in Triton, forward and backward fused: for CUDA devices, from a plain pip install, without nvcc.

Each step's update and its adjoint are those of `chunked_scan`; this scan also takes in the bias of the step sizes,
their softplus, the skip and the gate, so that no tensor of size [B, L, D] is made that is not a result. Inputs may be
bfloat16, float16 or float32, each its own; state, adjoint and every sum are float32. Nothing is added atomically:
what programs share (A, B, C, D, bias) is written as one part a program and summed after, so results repeat exactly.

Where images × channels are too few to fill the device, the sequence is cut into runs: a first pass finds what each
run does to the state, a second carries the states from run to run, and the last one is the scan itself (Blelloch's
scan in blocks, as Gu & Dao 2023, section 3.3.2, use it within a kernel).

B images, L steps, D channels, N states, R runs, K kept states.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

GROUP = 2
"""Steps that the backward pass unrolls: it holds so many states and decays of each channel in registers."""

EVERY = 2
"""One state in so many groups is kept for the backward pass, which walks the groups between once more. The passes that
need fewer registers unroll all the steps from one kept state to the next."""

REGISTERS = 168
"""Of a thread in the backward pass: with so many, 12 warps fit a multiprocessor instead of 8."""

_CHANNELS = 32
"""Of one program: a warp's lanes lie along the channels, and every lane holds all the states of its channel."""

_LEAST_STEPS = 64
"""A run shorter than this is not worth its share of the passes before."""

_FULL, _SPARSE = 8, 3
"""Programs a multiprocessor: so many fill it; with fewer than the second number the sequence is cut into runs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a shape is cut into programs."""

    states: int
    """N, rounded up to a power of two"""
    warps: int
    """of a program: 1 up to N = 16, so that no sum over states leaves a lane"""
    blocks: int
    """of channels"""
    runs: int
    """pieces of the sequence"""
    spans: int
    """of GROUP × EVERY steps, in one run"""


def plan(B: int, L: int, D: int, N: int, processors: int) -> Plan:
    """The plan for a shape on a device of so many multiprocessors. A table, not a trial: the same shape runs alike."""
    states = 1 << (N - 1).bit_length()
    blocks = -(-D // _CHANNELS)
    runs = 1
    if B * blocks < _SPARSE * processors:
        runs = max(1, min(-(-_FULL * processors // (B * blocks)), L // _LEAST_STEPS))
    all_spans = _kept(L)
    spans = -(-all_spans // runs)
    return Plan(states, min(8, max(1, states // 16)), blocks, -(-all_spans // spans), spans)


@cache
def why_not_triton(device_type: str, dtype: torch.dtype) -> str:
    """Empty where this scan can run, else what is missing. TRITON_INTERPRET=1 lets it run on a CPU, slowly."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it takes float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    if device_type != "cuda" and not (interpreted and device_type == "cpu"):
        return f"it needs tensors on a CUDA device, not on {device_type}"
    try:
        import_module("triton")
    except Exception as error:  # a broken install raises anything from ImportError to OSError
        return f"triton is not installed here ({type(error).__name__}: {error}): pip install triton"
    if interpreted:
        return ""
    if torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0):
        return "it needs a GPU of compute capability 8.0 (Ampere) or later"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton needs a C compiler to start its kernels: install gcc or clang, or name one in CC"
    return ""


_INPUTS = (
    "Tensor u_BLD, Tensor delta_BLD, Tensor A_ND, Tensor B_BLN, Tensor C_BLN, "
    "Tensor? D_D, Tensor? z_BLD, Tensor? bias_D"
)


@torch.library.custom_op(
    "reorder_mamba::triton_scan",
    mutates_args=(),
    schema=f"({_INPUTS}, bool softplus, bool keep) -> (Tensor, Tensor)",
)
def triton_scan(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_ND: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None,
    z_BLD: Tensor | None,
    bias_D: Tensor | None,
    softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """y [B, L, D] in u's dtype, and (`keep`, for the backward pass) one state in GROUP × EVERY steps [B, K, N, D].

    A, D and the bias in float32, A contiguous. An operator of its own, so that torch.compile takes it as one node.
    """
    kernels = import_module("reorder_mamba.triton_kernels")
    B, L, D, N = *u_BLD.shape, A_ND.shape[0]
    y_BLD = torch.empty(B, L, D, dtype=u_BLD.dtype, device=u_BLD.device)
    start_BKND = A_ND.new_empty(B, _kept(L) if keep else 0, N, D)
    if y_BLD.numel() == 0:
        return y_BLD, start_BKND
    u, delta, B_, C = _rows(u_BLD), _rows(delta_BLD), _wide(B_BLN), _wide(C_BLN)
    z, D_, bias = u if z_BLD is None else _rows(z_BLD), _or(D_D, A_ND), _or(bias_D, A_ND)
    cut = plan(B, L, D, N, _processors(u_BLD.device))
    grid, sizes = (B * cut.blocks, cut.runs), (L, D, cut.spans)
    options = _options(cut, N) | {"GROUP": GROUP * EVERY, "SOFTPLUS": softplus, "BIAS": bias_D is not None}
    carry_BRND = A_ND
    with _on(u_BLD.device):
        if cut.runs > 1:
            carry_BRND, total_BRD = A_ND.new_empty(B, cut.runs, N, D), A_ND.new_empty(B, cut.runs, D)
            strides = _strides(u, delta, B_)
            kernels.ends_kernel[grid](u, delta, A_ND, B_, bias, carry_BRND, total_BRD, *strides, *sizes, **options)
            kernels.carry_kernel[grid[0], 1](
                carry_BRND, total_BRD, A_ND, D, cut.runs, **_options(cut, N), REVERSED=False
            )
        kernels.forward_kernel[grid](
            u, delta, A_ND, B_, C, D_, z, bias, y_BLD, start_BKND, carry_BRND,
            *_strides(u, delta, B_, C, z), *sizes, **options,
            SKIP=D_D is not None, GATE=z_BLD is not None, KEEP=keep, CARRIED=cut.runs > 1,
        )  # fmt: skip
    return y_BLD, start_BKND


@torch.library.custom_op(
    "reorder_mamba::triton_scan_backward",
    mutates_args=(),
    schema=f"(Tensor dy_BLD, {_INPUTS}, Tensor start_BKND, bool softplus) -> Tensor[]",
)
def triton_scan_backward(
    dy_BLD: Tensor,
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_ND: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None,
    z_BLD: Tensor | None,
    bias_D: Tensor | None,
    start_BKND: Tensor,
    softplus: bool,
) -> Sequence[Tensor]:
    """Gradients of u, delta, A, B, C, D, z and the bias from that of y, each in its input's dtype; empty for None.

    What is summed over channels (dB, dC) is summed on tensor cores: as tf32, which rounds finer than the results
    where they are in half precision, else as three tf32 products for each float32 one.
    """
    kernels = import_module("reorder_mamba.triton_kernels")
    gradients = _empty_gradients(u_BLD, delta_BLD, A_ND, B_BLN, C_BLN, D_D, z_BLD, bias_D)
    du, ddelta, _, _, _, _, dz, _ = gradients
    if du.numel() == 0:
        return [gradient.zero_() for gradient in gradients]
    B, L, D, N = *u_BLD.shape, A_ND.shape[0]
    dy, u, delta, B_, C = _rows(dy_BLD), _rows(u_BLD), _rows(delta_BLD), _wide(B_BLN), _wide(C_BLN)
    z, D_, bias = u if z_BLD is None else _rows(z_BLD), _or(D_D, A_ND), _or(bias_D, A_ND)
    cut = plan(B, L, D, N, _processors(u_BLD.device))
    grid = (B * cut.blocks, cut.runs)
    options = _options(cut, N) | {"SOFTPLUS": softplus, "GATE": z_BLD is not None, "BIAS": bias_D is not None}
    dBC_2BJLN = A_ND.new_empty(2, B, cut.blocks, L, N)
    dA_BRND, dD_BRD, dbias_BRD = A_ND.new_empty(B, cut.runs, N, D), *A_ND.new_empty(2, B, cut.runs, D)
    carry_BRND = A_ND
    with _on(u_BLD.device):
        if cut.runs > 1:
            carry_BRND, total_BRD = torch.empty_like(dA_BRND), torch.empty_like(dD_BRD)
            kernels.adjoint_ends_kernel[grid](
                dy, delta, A_ND, C, z, bias, carry_BRND, total_BRD,
                *_strides(dy, delta, C, z), L, D, cut.spans, **options, GROUP=GROUP * EVERY,
            )  # fmt: skip
            kernels.carry_kernel[grid[0], 1](
                carry_BRND, total_BRD, A_ND, D, cut.runs, **_options(cut, N), REVERSED=True
            )
        kernels.backward_kernel[grid](
            dy, u, delta, A_ND, B_, C, D_, z, bias, start_BKND, carry_BRND,
            du, ddelta, dz, dA_BRND, dBC_2BJLN[0], dBC_2BJLN[1], dD_BRD, dbias_BRD,
            *_strides(dy, u, delta, B_, C, z), L, D, cut.spans * EVERY, **options, GROUP=GROUP, EVERY=EVERY,
            SKIP=D_D is not None, CARRIED=cut.runs > 1, PRECISION=_precision(B_BLN, C_BLN), **_registers(u_BLD.device),
        )  # fmt: skip
    dB_BLN, dC_BLN = dBC_2BJLN.sum(2)
    gradients[2] = dA_BRND.sum((0, 1))
    gradients[3], gradients[4] = dB_BLN.to(B_BLN.dtype, copy=True), dC_BLN.to(C_BLN.dtype, copy=True)
    if D_D is not None:
        gradients[5] = dD_BRD.sum((0, 1))
    if bias_D is not None:
        gradients[7] = dbias_BRD.sum((0, 1))
    return gradients


def _empty_gradients(*inputs: Tensor | None) -> list[Tensor]:
    """Contiguous and of each input's shape and dtype; for None of no size, as an operator's results are all tensors."""
    like = inputs[0]
    assert like is not None
    return [
        like.new_empty(0) if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        for tensor in inputs
    ]


def _kept(L: int) -> int:
    return -(-L // (GROUP * EVERY))


def _rows(tensor: Tensor) -> Tensor:
    """The tensor itself where its innermost stride is 1, as a slice of a projection has it; else a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _wide(tensor_BLN: Tensor) -> Tensor:
    """B or C as the kernels read them. They are read by every channel, so they are widened once, not there."""
    return tensor_BLN.to(torch.float32, memory_format=torch.contiguous_format).contiguous()


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """Some pointer for an input that is not given; it is not followed."""
    return other if tensor is None else tensor


def _options(cut: Plan, N: int) -> dict[str, Any]:
    return {"STATES": N, "N": cut.states, "BLOCK_D": _CHANNELS, "num_warps": cut.warps}


def _precision(B_BLN: Tensor, C_BLN: Tensor) -> str:
    return "tf32x3" if torch.float32 in (B_BLN.dtype, C_BLN.dtype) else "tf32"


def _registers(device: torch.device) -> dict[str, int]:
    """An option of NVIDIA's compiler alone."""
    return {"maxnreg": REGISTERS} if device.type == "cuda" and torch.version.hip is None else {}


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]


def _on(device: torch.device) -> Any:
    """Triton starts kernels on the current device, whatever the tensors' is."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@triton_scan.register_fake
def _(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_ND: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None,
    z_BLD: Tensor | None,
    bias_D: Tensor | None,
    softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    B, L, D = u_BLD.shape
    return u_BLD.new_empty(B, L, D), A_ND.new_empty(B, _kept(L) if keep else 0, A_ND.shape[0], D)


@triton_scan_backward.register_fake
def _(
    dy_BLD: Tensor,
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_ND: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None,
    z_BLD: Tensor | None,
    bias_D: Tensor | None,
    start_BKND: Tensor,
    softplus: bool,
) -> list[Tensor]:
    return _empty_gradients(u_BLD, delta_BLD, A_ND, B_BLN, C_BLN, D_D, z_BLD, bias_D)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.softplus, keep = inputs
    assert keep, "a scan whose gradient is asked for keeps its states"
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[1])


def _gradients(ctx: Any, dy_BLD: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy_BLD is None:
        return (None,) * 10
    tensors = ctx.saved_tensors
    gradients = triton_scan_backward(dy_BLD, *tensors, ctx.softplus)
    given = (None if tensor is None else gradient for tensor, gradient in zip(tensors[:8], gradients, strict=True))
    return (*given, None, None)


triton_scan.register_autograd(_gradients, setup_context=_setup)


@register_flop_formula(torch.ops.reorder_mamba.triton_scan)
def triton_scan_flops(u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    """9 operations for each state of each channel and step, as VMamba counts them."""
    return 9 * math.prod(u) * int(A[0])
