"""The chunked scan as a compiled kernel, built at its first use where there is a C++ compiler.

It computes what `chunked_scan` computes, with the same states kept for the backward pass, and rounds differently in the
last bits. Which of the two runs therefore never depends on what happens to lie in a cache: REORDER_CPU_SCAN says so
(`compiled`, `eager`), or else (`auto`, the default) the machine does: compiled where its compiler can build the kernel.

The kernel is built in about two seconds, once a machine, for all shapes. Inductor was tried first: one chunk's forward
pass as a function of tensors gained 1.15 times with sums over N, as a chunk's states go through memory between its
loops, and lost with N written out, after 5 to 35 seconds of compiling for each shape. This kernel gains three times.

B images, L steps, D channels, N states, K chunks, G groups of channels.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reorder_core import RunError, UsageError

CHUNK = 8
"""Steps of a chunk. Larger chunks save memory for the states, smaller ones stay in cache."""

SWITCH = "REORDER_CPU_SCAN"

_GROUP = 128  # kGroup of the kernel
_LOG2_E = 1.4426950408889634
_SOURCE = Path(__file__).with_suffix(".cpp")
_HEADER = _SOURCE.with_name("vectors.h")
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fPIC",
    "-shared",
    "-fopenmp",
    f"-DREORDER_CHUNK={CHUNK}",
)
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}

_log = logging.getLogger(__name__)


def runs_for(tensor: Tensor) -> bool:
    """Whether the compiled kernel runs for tensors like this one; builds it the first time that it is asked for.

    Raises UsageError for a value of REORDER_CPU_SCAN that does not exist, RunError for `compiled` where it cannot be.
    """
    return tensor.device.type == "cpu" and tensor.dtype in _DTYPES and _chosen(os.environ.get(SWITCH) or "auto")


@cache
def why_not() -> str:
    """Empty where the kernel can run on this machine, else what is missing."""
    try:
        library()
    except subprocess.CalledProcessError as error:
        said = next((line for line in error.stderr.splitlines() if "error" in line), f"exit status {error.returncode}")
        return f"{error.cmd[0]} fails to build the kernel ({said})"
    except (OSError, subprocess.SubprocessError, LookupError, RuntimeError) as error:
        return str(error)
    return ""


def forward(u_BLD: Tensor, delta_BLD: Tensor, A_ND: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> tuple[Tensor, Tensor]:
    """y [B, L, D] and the state before each chunk [K, B, N, D]; all float32 or all float64, on a CPU."""
    u_BLD, delta_BLD, B_BLN, C_BLN = map(_rows, (u_BLD, delta_BLD, B_BLN, C_BLN))
    B, L, D = u_BLD.shape
    N = A_ND.shape[0]
    rate_ND = (A_ND * _LOG2_E).contiguous()
    y_BLD = u_BLD.new_empty(B, L, D)
    start_KBND = u_BLD.new_empty(-(-L // CHUNK), B, N, D)
    tensors = (u_BLD, delta_BLD, rate_ND, B_BLN, C_BLN, y_BLD, start_KBND)
    _kernel("forward", u_BLD)(_numbers((B, L, D, N), u_BLD, delta_BLD, B_BLN, C_BLN), *map(Tensor.data_ptr, tensors))
    return y_BLD, start_KBND


def backward(
    dy_BLD: Tensor, u_BLD: Tensor, delta_BLD: Tensor, A_ND: Tensor, B_BLN: Tensor, C_BLN: Tensor, start_KBND: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta [B, L, D], A [N, D], B and C [B, L, N] from that of y."""
    dy_BLD, u_BLD, delta_BLD, B_BLN, C_BLN = map(_rows, (dy_BLD, u_BLD, delta_BLD, B_BLN, C_BLN))
    B, L, D = u_BLD.shape
    N = A_ND.shape[0]
    A_ND = A_ND.contiguous()
    du_BLD, ddelta_BLD = u_BLD.new_empty(B, L, D), u_BLD.new_empty(B, L, D)
    dA_BND = u_BLD.new_empty(B, N, D)
    dB_GBLN, dC_GBLN = u_BLD.new_empty(2, -(-D // _GROUP), B, L, N)
    numbers = _numbers((B, L, D, N), u_BLD, delta_BLD, B_BLN, C_BLN, dy_BLD)
    inputs = (dy_BLD, u_BLD, delta_BLD, A_ND, A_ND * _LOG2_E, B_BLN, C_BLN, start_KBND.contiguous())
    outputs = (du_BLD, ddelta_BLD, dA_BND, dB_GBLN, dC_GBLN)
    _kernel("backward", u_BLD)(numbers, *map(Tensor.data_ptr, inputs + outputs))
    return du_BLD, ddelta_BLD, dA_BND.sum(0), dB_GBLN.sum(0), dC_GBLN.sum(0)


@cache
def library() -> ctypes.CDLL:
    """The kernel, built if this machine has not built this text with this compiler for this processor before.

    Raises LookupError where there is no compiler, CalledProcessError where it fails, OSError where the result can not
    be kept (below XDG_CACHE_HOME, or ~/.cache) or loaded.
    """
    compiler = _compiler()
    # What the compiler predefines names its version and the processor's instructions: a cache in a home folder that
    # machines share must not hand one the code of another.
    about = subprocess.run(
        [*compiler, *_FLAGS, "-E", "-dM", "-x", "c++", os.devnull],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    told = [_SOURCE.read_bytes(), _HEADER.read_bytes(), about.encode(), " ".join(_FLAGS).encode()]
    key = hashlib.sha256(b"\0".join(told)).hexdigest()[:16]
    built = _folder() / f"compiled_scan_{key}.so"
    if not built.exists():
        _build(compiler, built)
    return ctypes.CDLL(str(built))


def _build(compiler: list[str], to: Path) -> None:
    _log.info("building the compiled scan with %s, once for this machine: %s", shlex.join(compiler), to)
    to.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own first: processes that start together may all build, and none may load half a file.
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        part = Path(folder) / to.name
        command = [*compiler, *_FLAGS, str(_SOURCE), "-o", str(part)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        part.replace(to)


def _compiler() -> list[str]:
    """The command of the compiler: what CXX says, as in make, or the first that is there."""
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise LookupError(f"CXX can not be read as a command: {error}") from error
    for command in (named,) if named else (["c++"], ["g++"], ["clang++"]):
        if shutil.which(command[0]):
            return command
    raise LookupError(f"there is no C++ compiler ({named[0] if named else 'c++, g++ or clang++'})")


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reorder"


@cache
def _chosen(asked: str) -> bool:
    if asked == "eager":
        _log.info("selective scan on cpu, in torch: eager, as %s asks", SWITCH)
        return False
    if asked not in ("auto", "compiled"):
        raise UsageError(f"{SWITCH} is '{asked}'; it must be 'auto', 'compiled' or 'eager'")
    missing = why_not()
    if missing and asked == "compiled":
        raise RunError(f"{SWITCH}=compiled can not run: {missing}; install a C++ compiler with OpenMP, or unset it")
    if missing:
        _log.info("selective scan on cpu, in torch: eager, about three times slower than compiled: %s", missing)
    else:
        _log.info("selective scan on cpu, in torch: compiled")
    return not missing


@cache
def _entry(name: str) -> Callable[..., None]:
    function = getattr(library(), name)
    function.restype = None
    return function  # type: ignore[no-any-return]


def _kernel(direction: str, like: Tensor) -> Callable[..., None]:
    entry = _entry(f"scan_{direction}_{_DTYPES[like.dtype]}")
    return lambda numbers, *pointers: entry(numbers, *map(ctypes.c_void_p, pointers))


def _numbers(sizes: tuple[int, ...], *rows: Tensor) -> Any:
    """What the kernel wants to know besides addresses: sizes, threads, and strides of image and step."""
    values = [*sizes, torch.get_num_threads(), *(stride for tensor in rows for stride in tensor.stride()[:2])]
    return (ctypes.c_int64 * len(values))(*values)


def _rows(tensor: Tensor) -> Tensor:
    """The same numbers with the last dimension contiguous; a view with strides further out stays one."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
