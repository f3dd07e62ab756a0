"""One selective scan, three backends: mamba-ssm's compiled kernels where they really are there, Triton, pure torch.

B images, L steps, D channels, N states.
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
from reorder_mamba.chunked_scan import scan
from reorder_mamba.triton_scan import triton_scan, why_not_triton

Kernels = Literal["mamba_ssm", "triton"]
Chosen = Literal["mamba_ssm", "triton", "torch"]
Backend = Literal["auto", "mamba_ssm", "triton", "torch"]

__all__ = ["Backend", "check_backend", "choose_backend", "selective_scan", "why_not_mamba_ssm", "why_not_triton"]

_FASTEST_FIRST: tuple[Kernels, ...] = ("mamba_ssm", "triton")

_log = logging.getLogger(__name__)


def selective_scan(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None = None,
    z_BLD: Tensor | None = None,
    delta_bias_D: Tensor | None = None,
    delta_softplus: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Selective scan of Mamba-1 (Gu & Dao 2023, arXiv 2312.00752, algorithm 2); y [B, L, D] in u's dtype.

        h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;    y_t = (C_t h_t + D u_t) silu(z_t)

    u: the sequence. delta: step sizes, to which the bias is added and softplus applied first, where they are given.
    A: decay rates, negative. B, C: what a step writes and reads. D: the skip. z: the gate; None for no gate.
    Unlike mamba-ssm's function of this name, channels stand innermost ([B, L, D], not [B, D, L]).

    The scan itself is in float32 whatever the inputs' dtype or autocast say (float64 for float64), as long products
    of decays lose everything in half precision. `auto` takes the first that can run for these tensors on a CUDA device
    of `mamba_ssm`, `triton` and `torch`, elsewhere `torch`, and says once in the log which. An exported graph always
    has torch's own operators. Raises RunError for a backend by name where it can not run.
    """
    chosen = "torch" if torch.compiler.is_exporting() else choose_backend(backend, u_BLD.device, u_BLD.dtype)
    run = {"mamba_ssm": _mamba_ssm_scan, "triton": _triton_scan, "torch": _torch_scan}[chosen]
    with torch.autocast(u_BLD.device.type, enabled=False):
        return run(u_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D, z_BLD, delta_bias_D, delta_softplus)


@torch.compiler.assume_constant_result
def choose_backend(backend: Backend, device: torch.device, dtype: torch.dtype) -> Chosen:
    """The backend that runs for tensors on this device, of this dtype. torch.compile asks once, when it traces."""
    if backend == "torch":
        return "torch"
    if backend != "auto":
        if missing := _why_not(backend, device.type, dtype):
            raise RunError(f"scan '{backend}' can not run: {missing}; choose scan 'auto' or 'torch'")
        return backend
    if device.type != "cuda":
        _say_once(device.type, "torch", "")
        return "torch"
    chosen, passed_over = _fastest(device.type, dtype)
    _say_once(device.type, chosen, passed_over)
    return chosen


def _fastest(device_type: str, dtype: torch.dtype) -> tuple[Chosen, str]:
    """The first that can run, and what the ones before it lack."""
    passed_over: list[str] = []
    for name in _FASTEST_FIRST:
        missing = _why_not(name, device_type, dtype)
        if not missing:
            return name, "; ".join(passed_over)
        passed_over.append(f"{name}: {missing}")
    return "torch", "; ".join(passed_over)


def check_backend(backend: Backend) -> None:
    """Refuse a backend that can run nowhere on this machine, before anything is built. Raises UsageError."""
    if backend not in _FASTEST_FIRST:
        return
    cuda = torch.cuda.is_available()
    if missing := _why_not(backend, "cuda" if cuda else "cpu", torch.float32):
        missing = missing if cuda else "there is no CUDA device here"
        raise UsageError(f"the backbone's scan '{backend}' can not run: {missing}; choose scan: auto or torch")


def _why_not(backend: Kernels, device_type: str, dtype: torch.dtype) -> str:
    return (why_not_triton if backend == "triton" else why_not_mamba_ssm)(device_type, dtype)


@cache
def why_not_mamba_ssm(device_type: str, dtype: torch.dtype) -> str:
    """Empty where mamba-ssm's compiled scan can run, else what is missing.

    The compiled extension is looked for, not the package: a plain `pip install mamba-ssm` may build none.
    """
    if device_type != "cuda":
        return f"its compiled scan needs tensors on a CUDA device, not on {device_type}"
    if dtype == torch.float64:
        return "its compiled scan has no float64"
    try:
        import_module("selective_scan_cuda")
        interface = import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # a broken build raises anything from ImportError to OSError
        return (
            f"mamba-ssm's compiled scan is not installed here ({type(error).__name__}: {error}): install it with nvcc "
            f"and MAMBA_FORCE_BUILD=TRUE pip install 'reorder[mamba]', as a plain install builds none"
        )
    if not callable(getattr(interface, "selective_scan_fn", None)):
        return "the installed mamba-ssm has no selective_scan_fn"
    return ""


@cache
def _say_once(device_type: str, chosen: Chosen, missing: str) -> None:
    what = {"mamba_ssm": "mamba-ssm's compiled kernels", "triton": "Triton kernels", "torch": "pure torch"}[chosen]
    if device_type == "cuda" and chosen == "torch":
        _log.warning("selective scan on cuda: pure torch, which is much slower than kernels: %s", missing)
    elif missing:
        _log.info("selective scan on %s: %s (%s)", device_type, what, missing)
    else:
        _log.info("selective scan on %s: %s", device_type, what)


def _torch_scan(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None,
    z_BLD: Tensor | None,
    delta_bias_D: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    work = torch.float64 if u_BLD.dtype == torch.float64 else torch.float32
    u, delta, B, C = (tensor.to(work) for tensor in (u_BLD, delta_BLD, B_BLN, C_BLN))
    if delta_bias_D is not None:
        delta = delta + delta_bias_D.to(work)
    if delta_softplus:
        delta = functional.softplus(delta)
    if torch.compiler.is_exporting():
        y = _written_out(u, delta, A_DN.to(work), B, C)
    else:
        y, _ = scan(u, delta, A_DN.to(work).t(), B, C)
    if D_D is not None:
        y = torch.addcmul(y, u, D_D.to(work))
    if z_BLD is not None:
        y = y * functional.silu(z_BLD.to(work))
    return y.to(u_BLD.dtype)


def _written_out(u_BLD: Tensor, delta_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> Tensor:
    """The scan step by step: an exported graph then has torch's own operators only, and runs without this package."""
    h_BDN = u_BLD.new_zeros(u_BLD.shape[0], u_BLD.shape[2], A_DN.shape[1])
    outputs = []
    steps = zip(*(tensor.unbind(1) for tensor in (u_BLD, delta_BLD, B_BLN, C_BLN)), strict=True)
    for u_BD, delta_BD, B_BN, C_BN in steps:
        decay_BDN = torch.exp(delta_BD.unsqueeze(-1) * A_DN)
        h_BDN = decay_BDN * h_BDN + (delta_BD * u_BD).unsqueeze(-1) * B_BN.unsqueeze(1)
        outputs.append((h_BDN * C_BN.unsqueeze(1)).sum(-1))
    return torch.stack(outputs, dim=1)


def _mamba_ssm_scan(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None,
    z_BLD: Tensor | None,
    delta_bias_D: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    selective_scan_fn = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    u, delta, B, C = (tensor.mT.contiguous() for tensor in (u_BLD, delta_BLD.to(u_BLD.dtype), B_BLN, C_BLN))
    y_BDL: Tensor = selective_scan_fn(
        u,
        delta,
        A_DN.float().contiguous(),
        B.to(u.dtype),
        C.to(u.dtype),
        None if D_D is None else D_D.float(),
        z=None if z_BLD is None else z_BLD.to(u.dtype).mT.contiguous(),
        delta_bias=None if delta_bias_D is None else delta_bias_D.float(),
        delta_softplus=delta_softplus,
    )
    return y_BDL.mT


def _triton_scan(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None,
    z_BLD: Tensor | None,
    delta_bias_D: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    inputs = (
        u_BLD,
        delta_BLD,
        A_DN.float().t().contiguous(),
        B_BLN,
        C_BLN,
        None if D_D is None else D_D.float(),
        z_BLD,
        None if delta_bias_D is None else delta_bias_D.float(),
    )
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    y_BLD: Tensor = triton_scan(*inputs, delta_softplus, keep)[0]
    return y_BLD
