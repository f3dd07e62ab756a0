"""One selective scan, two backends: mamba-ssm's compiled kernels where they really are there, and pure torch.

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

from reorder_core import RunError
from reorder_mamba.chunked_scan import scan

Backend = Literal["auto", "torch", "mamba_ssm"]

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
    of decays lose everything in half precision. `auto` takes `mamba_ssm` where its compiled scan is there for these
    tensors, else `torch`, and says once in the log which. Raises RunError for `mamba_ssm` where it can not run.
    """
    chosen = choose_backend(backend, u_BLD.device, u_BLD.dtype)
    with torch.autocast(u_BLD.device.type, enabled=False):
        run = _mamba_ssm_scan if chosen == "mamba_ssm" else _torch_scan
        return run(u_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D, z_BLD, delta_bias_D, delta_softplus)


def choose_backend(backend: Backend, device: torch.device, dtype: torch.dtype) -> Literal["torch", "mamba_ssm"]:
    """The backend that runs for tensors on this device, of this dtype."""
    if backend == "torch":
        return "torch"
    missing = why_not_mamba_ssm(device.type, dtype)
    if backend == "mamba_ssm":
        if missing:
            raise RunError(f"scan 'mamba_ssm' can not run: {missing}; choose scan 'auto' or 'torch'")
        return "mamba_ssm"
    _say_once(device.type, missing)
    return "torch" if missing else "mamba_ssm"


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
        return f"mamba-ssm's compiled scan is not installed here ({type(error).__name__}: {error})"
    if not callable(getattr(interface, "selective_scan_fn", None)):
        return "the installed mamba-ssm has no selective_scan_fn"
    return ""


@cache
def _say_once(device_type: str, missing: str) -> None:
    if not missing:
        _log.info("selective scan on %s: mamba-ssm's compiled kernels", device_type)
    elif device_type == "cuda":
        _log.warning("selective scan on cuda: pure torch, which is much slower than mamba-ssm's kernels: %s", missing)
    else:
        _log.info("selective scan on %s: pure torch", device_type)


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
    y_BDL = selective_scan_fn(
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
