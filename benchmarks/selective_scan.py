"""Time and memory of the selective scan, forward and backward, against three other ways to write it.

    python benchmarks/selective_scan.py --out selective_scan.md

All run in one process, in turn, on the same float32 inputs, with the threads that torch takes (`--threads`). Times are
medians; the twin takes seconds, so it runs once. Peak memory is that of a process of its own for each way: the highest
resident set (VmHWM of /proc/self/status, Linux) while it runs, less the resident set just before.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import selective_scan
from torch import Tensor

Inputs = tuple[Tensor, ...]


def ours(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    return selective_scan(u, delta, A, B, C, D, backend="torch")


def unbound_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """All factors first, then a loop over unbound views under plain autograd."""
    decays = torch.exp(delta.unsqueeze(-1) * A).unbind(1)
    writes = ((delta * u).unsqueeze(-1) * B.unsqueeze(2)).unbind(1)
    h = torch.zeros_like(decays[0])
    outputs = []
    for decay, write, read in zip(decays, writes, C.unbind(1), strict=True):
        h = decay * h + write
        outputs.append((h @ read.unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, dim=1) + u * D


def mambapy(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    from mambapy.pscan import pscan

    decay = torch.exp(delta.unsqueeze(-1) * A)
    h = pscan(decay, (delta * u).unsqueeze(-1) * B.unsqueeze(2))
    return (h @ C.unsqueeze(-1)).squeeze(-1) + u * D


def twin(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    return selective_scan_reference(u, delta, A, B, C, D)


WAYS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "ours": ("reorder_mamba", ours),
    "loop": ("loop over unbound views, plain autograd", unbound_loop),
    "mambapy": ("mambapy's parallel scan", mambapy),
    "twin": ("the twin (form of mamba-ssm's reference)", twin),
}


def inputs(shape: tuple[int, int, int, int]) -> Inputs:
    B, D, L, N = shape
    draw = torch.Generator().manual_seed(0)
    tensors = (
        torch.randn(B, L, D, generator=draw),
        0.1 * torch.rand(B, L, D, generator=draw),
        -torch.arange(1.0, N + 1).repeat(D, 1),
        torch.randn(B, L, N, generator=draw),
        torch.randn(B, L, N, generator=draw),
        torch.ones(D),
    )
    return tuple(tensor.requires_grad_() for tensor in tensors)


def once(way: Callable[..., Tensor], tensors: Inputs, dy: Tensor) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    start = time.perf_counter()
    y = way(*tensors)
    middle = time.perf_counter()
    torch.autograd.grad(y, tensors, dy)
    return middle - start, time.perf_counter() - middle


def timed(way: Callable[..., Tensor], shape: tuple[int, int, int, int], repeats: int) -> tuple[float, float]:
    tensors = inputs(shape)
    dy = torch.ones(shape[0], shape[2], shape[1])
    if repeats > 1:
        once(way, tensors, dy)
    rows = [once(way, tensors, dy) for _ in range(repeats)]
    return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


def resident(key: str) -> float:
    """A size of this process in MiB, as the kernel counts it."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def print_peak(name: str, shape: tuple[int, int, int, int]) -> None:
    """MiB that one forward and backward pass adds; run in a process of its own."""
    way = WAYS[name][1]
    once(way, inputs((1, 8, 9, 2)), torch.ones(1, 9, 8))  # what torch sets up at its first pass does not count
    tensors, dy = inputs(shape), torch.ones(shape[0], shape[2], shape[1])
    before = resident("VmRSS")
    once(way, tensors, dy)
    print(resident("VmHWM") - before)


def peak(name: str, arguments: list[str]) -> float | None:
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, __file__, "--peak", name, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(shape: tuple[int, int, int, int], repeats: int, threads: int, ways: list[str]) -> str:
    B, D, L, N = shape
    lines = [
        f"(B, D, L, N) = ({B}, {D}, {L}, {N}), float32, {threads} threads, torch {torch.__version__}, "
        f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}",
        "",
        "| way | forward ms | backward ms | both ms | times ours | peak MiB | times ours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    arguments = ["--shape", *map(str, shape), "--threads", str(threads)]
    own_time = own_peak = 0.0
    for name in ways:
        title, way = WAYS[name]
        forward, backward = timed(way, shape, 1 if name == "twin" else repeats)
        both, memory = forward + backward, peak(name, arguments)
        if name == "ours":
            own_time, own_peak = both, memory or 0.0
        spent = "n/a | n/a" if memory is None else f"{memory:.0f} | {memory / own_peak:.1f}"
        cells = f"{forward * 1e3:.1f} | {backward * 1e3:.1f} | {both * 1e3:.1f} | {both / own_time:.1f}"
        lines.append(f"| {title} | {cells} | {spent} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, metavar=("B", "D", "L", "N"), default=(16, 384, 196, 16))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--without-twin", action="store_true", help="leave out the slowest")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = tuple(given.shape)
    if given.peak:
        print_peak(given.peak, shape)
        return
    ways = [name for name in WAYS if not (given.without_twin and name == "twin")]
    text = table(shape, given.repeats, given.threads, ways)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
