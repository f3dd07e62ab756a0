"""Mamba-2's scan as one function with two backends: mamba-ssm's Triton kernels where they are there, and matrix
products in pure torch.

B images, L steps, H heads, P channels of a head, G groups of heads that share B and C, N states.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from reorder_core import RunError, UsageError
from reorder_mamba.dual_chunks import dual, dual_written_out

Chosen = Literal["torch", "mamba_ssm"]
Backend = Literal["auto", "torch", "mamba_ssm"]

CHUNK = 64
"""Steps of a chunk at the most. Longer ones spend more inside chunks, shorter ones more on the states between them."""

_KERNELS_CHUNK = 256  # mamba-ssm's own default; its kernels want a power of two

_log = logging.getLogger(__name__)


def state_space_dual(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    z_BLHP: Tensor | None = None,
    chunk: int = CHUNK,
    backend: Backend = "auto",
) -> Tensor:
    """State space duality of Mamba-2 (Dao & Gu 2024, arXiv 2405.21060, section 6); y [B, L, H, P] in x's dtype.

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t^T;    y_t = (C_t^T h_t + D x_t) silu(z_t)

    x: the sequence, P channels a head. dt: step sizes, not negative (0: the step neither writes nor forgets). A: one
    decay rate a head, negative. B, C: what a step writes and reads, shared by the H / G heads of a group. D: the skip.
    z: the gate; None for no gate. Any length L: chunks of at most `chunk` steps change speed and memory, not y.

    States and products are in float32 whatever the inputs' dtype or autocast say (float64 for float64). `auto` takes
    `mamba_ssm` on a CUDA device where its kernels are there, else `torch`, and says once in the log which; an exported
    graph always has torch's own operators. On a CUDA device the products of `torch` run on tensor cores where
    `torch.set_float32_matmul_precision` allows it.
    Raises RunError for `mamba_ssm` where it can not run, UsageError for heads that the groups do not divide.
    """
    H, G = x_BLHP.shape[2], B_BLGN.shape[2]
    if H % G:
        raise UsageError(f"{H} heads can not share B and C in {G} groups: choose groups that divide the heads")
    if chunk < 1:
        raise UsageError(f"a chunk has at least one step, not {chunk}")
    chosen = "torch" if torch.compiler.is_exporting() else choose_backend(backend, x_BLHP.device, x_BLHP.dtype)
    with torch.autocast(x_BLHP.device.type, enabled=False):
        if chosen == "mamba_ssm":
            return _mamba_ssm_dual(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, z_BLHP)
        return _torch_dual(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, z_BLHP, chunk)


@torch.compiler.assume_constant_result
def choose_backend(backend: Backend, device: torch.device, dtype: torch.dtype) -> Chosen:
    """The backend that runs for tensors on this device, of this dtype. torch.compile asks once, when it traces."""
    if backend == "torch":
        return "torch"
    missing = why_not_mamba_ssm_kernels(device.type, dtype)
    if backend == "mamba_ssm":
        if missing:
            raise RunError(f"scan 'mamba_ssm' can not run: {missing}; choose scan 'auto' or 'torch'")
        return "mamba_ssm"
    _say_once(device.type, missing)
    return "torch" if missing else "mamba_ssm"


def check_backend(backend: Backend) -> None:
    """Refuse a backend that can run nowhere on this machine, before anything is built. Raises UsageError."""
    if backend != "mamba_ssm":
        return
    there = torch.cuda.is_available()
    missing = why_not_mamba_ssm_kernels("cuda", torch.float32) if there else "there is no CUDA device here"
    if missing:
        raise UsageError(f"the backbone's scan 'mamba_ssm' can not run: {missing}; choose scan: auto or torch")


@cache
def why_not_mamba_ssm_kernels(device_type: str, dtype: torch.dtype) -> str:
    """Empty where mamba-ssm's Triton kernels for Mamba-2 can run, else what is missing."""
    if device_type != "cuda":
        return f"its kernels for Mamba-2 need tensors on a CUDA device, not on {device_type}"
    if dtype == torch.float64:
        return "its kernels for Mamba-2 have no float64"
    try:
        module = import_module("mamba_ssm.ops.triton.ssd_combined")
    except Exception as error:  # a broken build raises anything from ImportError to OSError
        return (
            f"mamba-ssm's kernels for Mamba-2 can not be imported here ({type(error).__name__}: {error}): "
            f"pip install 'reorder[mamba]' (they are written in Triton and need no nvcc)"
        )
    if not callable(getattr(module, "mamba_chunk_scan_combined", None)):
        return "the installed mamba-ssm has no mamba_chunk_scan_combined: install mamba-ssm 2 or newer"
    return ""


@cache
def _say_once(device_type: str, missing: str) -> None:
    if not missing:
        _log.info("state space dual on %s: mamba-ssm's kernels", device_type)
    elif device_type == "cuda":
        _log.info("state space dual on cuda: matrix products in pure torch (%s)", missing)
    else:
        _log.info("state space dual on %s: matrix products in pure torch", device_type)


def _torch_dual(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None,
    z_BLHP: Tensor | None,
    chunk: int,
) -> Tensor:
    work = torch.float64 if x_BLHP.dtype == torch.float64 else torch.float32
    x, dt, A, B, C = (tensor.to(work) for tensor in (x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN))
    y = dual_written_out(x, dt, A, B, C, chunk) if torch.compiler.is_exporting() else dual(x, dt, A, B, C, chunk)[0]
    # What a step reads of its own writing is a factor of x, like the skip: one pass for both.
    own_BLH = dt * (B * C).sum(-1).repeat_interleave(x.shape[2] // B.shape[2], dim=2)
    if D_H is not None:
        own_BLH = own_BLH + D_H.to(work)
    y = torch.addcmul(y, x, own_BLH.unsqueeze(-1))
    if z_BLHP is not None:
        y = y * functional.silu(z_BLHP.to(work))
    return y.to(x_BLHP.dtype)


def _mamba_ssm_dual(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None,
    z_BLHP: Tensor | None,
) -> Tensor:
    combined = import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
    y_BLHP: Tensor = combined(
        x_BLHP,
        dt_BLH.float(),
        A_H.float(),
        B_BLGN.to(x_BLHP.dtype),
        C_BLGN.to(x_BLHP.dtype),
        chunk_size=_KERNELS_CHUNK,
        D=None if D_H is None else D_H.float(),
        z=None if z_BLHP is None else z_BLHP.to(x_BLHP.dtype),
    )
    return y_BLHP
