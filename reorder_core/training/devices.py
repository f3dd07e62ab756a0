"""Where a run computes and in which numbers: Accelerate, asked for what the reader asked for."""

from __future__ import annotations

from typing import Literal

import torch
from accelerate import Accelerator

from reorder_core.errors import UsageError

Device = Literal["auto", "cpu", "cuda", "mps"]
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def choose_device(device: Device) -> torch.device:
    """The device asked for; auto: a GPU where there is one. Raises `UsageError` where there is no such device."""
    available = _available()
    if not available.get(device, True):
        there = ["cpu", *(name for name, found in available.items() if found)]
        raise UsageError(f"--device {device}: this machine has no such device; it has {', '.join(there)}")
    if device == "auto":
        return torch.device(next((name for name, found in available.items() if found), "cpu"))
    return torch.device(device)


def _available() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def make_accelerator(device: Device, precision: str) -> Accelerator:
    """The processes, device and precision of this command. Raises `UsageError` where there is no such device."""
    choose_device(device)
    available = _available()
    if device == "mps" and available["cuda"]:
        raise UsageError("--device mps: a machine with CUDA computes there; use --device cuda or cpu")
    on_gpu = device != "cpu" and any(available.values())
    if precision == "auto":
        whole = on_gpu and available["cuda"] and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if whole else "fp32"
    if precision == "fp16" and not on_gpu:
        raise UsageError("training.precision: fp16 needs a GPU: use auto, bf16 or fp32")
    try:
        return Accelerator(
            cpu=not on_gpu,
            mixed_precision=_MIXED[precision],
        )
    except ValueError as error:
        raise UsageError(f"training.precision: {precision} cannot be used here: {error}") from error
