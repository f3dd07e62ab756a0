"""Time and memory of the selective scan, forward and backward: compiled, eager, and three other ways to write it.

    python benchmarks/selective_scan.py --slow --out selective_scan.md

All run in one process, taking turns, on the same float32 inputs, with the threads that torch takes (`--threads`). Times
are medians; a way that needs longer than two seconds runs once. The twin at 1,024 steps takes a minute and a half, and
runs with `--slow` only. Peak memory is that of a process of its own for each way: the highest resident set (VmHWM of
/proc/self/status, Linux) while it runs, less the resident set just before.

The limit of a forward pass is one exponential for each of its B·D·L·N state elements: as many of torch's exp2, in
blocks that stay in the second cache, measured in the same turns.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reorder_mamba.compiled_scan import SWITCH, why_not
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import selective_scan
from torch import Tensor

Inputs = tuple[Tensor, ...]
Shape = tuple[int, int, int, int]

SHAPES: tuple[Shape, ...] = ((32, 128, 64, 16), (16, 384, 196, 16), (4, 384, 1024, 16))
LONG = 512
"""From so many steps on, the twin is for the patient."""


def eager(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    os.environ[SWITCH] = "eager"
    return selective_scan(u, delta, A, B, C, D, backend="torch")


def compiled(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    os.environ[SWITCH] = "compiled"
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
    "eager": ("reorder_mamba, eager", eager),
    "compiled": ("reorder_mamba, compiled", compiled),
    "loop": ("loop over unbound views, plain autograd", unbound_loop),
    "mambapy": ("mambapy's parallel scan", mambapy),
    "twin": ("the twin (form of mamba-ssm's reference)", twin),
}


def inputs(shape: Shape) -> Inputs:
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


def timed(ways: list[str], shape: Shape, repeats: int) -> tuple[dict[str, tuple[float, float]], float]:
    """Median seconds of forward and backward of each way, and of as many exponentials as the shape has states."""
    tensors, dy = inputs(shape), torch.ones(shape[0], shape[2], shape[1])
    rows: dict[str, list[tuple[float, float]]] = {name: [once(WAYS[name][1], tensors, dy)] for name in ways}
    quick = [name for name in ways if sum(rows[name][0]) < 2]
    rows |= {name: [] for name in quick}  # their first turn was the warm-up
    limits = []
    for _ in range(repeats):
        for name in quick:
            rows[name].append(once(WAYS[name][1], tensors, dy))
        limits.append(exponentials(shape))
    medians = {name: tuple(map(statistics.median, zip(*row, strict=True))) for name, row in rows.items()}
    return medians, statistics.median(limits)


def exponentials(shape: Shape) -> float:
    """Seconds of torch's exp2 over B·D·L·N numbers, 128 KiB a thread at a time."""
    block = torch.linspace(-1, 0, 32768 * torch.get_num_threads())
    out = torch.empty_like(block)
    start = time.perf_counter()
    for _ in range(-(-math.prod(shape) // block.numel())):
        torch.exp2(block, out=out)
    return time.perf_counter() - start


def resident(key: str) -> float:
    """A size of this process in MiB, as the kernel counts it."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def print_peak(name: str, shape: Shape) -> None:
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


def table(shape: Shape, repeats: int, threads: int, ways: list[str]) -> str:
    """Ratios are to the eager form: how many times as long, as much, another way takes."""
    B, D, L, N = shape
    lines = [
        f"(B, D, L, N) = ({B}, {D}, {L}, {N}), float32, {threads} threads, torch {torch.__version__}, "
        f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}",
        "",
        "| way | forward ms | backward ms | both ms | times eager | peak MiB | times eager |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    seconds, limit = timed(ways, shape, repeats)
    arguments = ["--shape", *map(str, shape), "--threads", str(threads)]
    peaks = {name: peak(name, arguments) for name in ways}
    for name, (forward, backward) in seconds.items():
        both, memory, of_eager = forward + backward, peaks[name], peaks["eager"]
        spent = "n/a | n/a" if memory is None or not of_eager else f"{memory:.0f} | {memory / of_eager:.2f}"
        ratio = both / sum(seconds["eager"])
        cells = f"{forward * 1e3:.1f} | {backward * 1e3:.1f} | {both * 1e3:.1f} | {ratio:.2f}"
        lines.append(f"| {WAYS[name][0]} | {cells} | {spent} |")
    lines += ["", f"One exponential a state element: {limit * 1e3:.1f} ms."]
    if "compiled" in seconds:
        forward = seconds["compiled"][0]
        lines.append(
            f"The compiled form is {sum(seconds['eager']) / sum(seconds['compiled']):.2f} times as fast as the eager "
            f"one, and its forward pass takes {forward / limit:.2f} times that limit."
        )
    return "\n".join(lines)


def ways_for(shape: Shape, slow: bool, without_twin: bool) -> list[str]:
    left_out = set()
    if without_twin or (shape[2] >= LONG and not slow):
        left_out.add("twin")
    if missing := why_not():
        print(f"no compiled form here: {missing}", file=sys.stderr)
        left_out.add("compiled")
    return [name for name in WAYS if name not in left_out]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, metavar=("B", "D", "L", "N"), help="one shape only")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slow", action="store_true", help=f"the twin also at {LONG} steps and more")
    parser.add_argument("--without-twin", action="store_true", help="leave out the slowest")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shapes: tuple[Shape, ...] = (tuple(given.shape),) if given.shape else SHAPES
    if given.peak:
        print_peak(given.peak, shapes[0])
        return
    tables = []
    for shape in shapes:
        ways = ways_for(shape, given.slow, given.without_twin)
        tables.append(table(shape, given.repeats, given.threads, ways))
        print(tables[-1], end="\n\n", flush=True)
    if given.out:
        given.out.write_text("\n\n".join(tables) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
