"""Time and memory of Mamba-2's scan and mixer, forward and backward, against the recurrence and against transformers.

    python benchmarks/mamba2.py --out mamba2.md

The scan: ours, the plain recurrence (the twin, and the same loop over unbound views as fast as autograd runs it), and
transformers' chunk scan, called in its own module, with its chunk of 256 and with ours. The mixer: ours and
transformers' Mamba2Mixer, same weights. All run in one process, alternating, on the same float32 inputs, with the
threads that torch takes (`--threads`). Times are medians; the twin takes seconds, so it runs once. Peak memory is that
of a process of its own for each way: the highest resident set (VmHWM of /proc/self/status, Linux) while it runs, less
the resident set just before.
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
from reorder_mamba.mamba2_mixer import Mamba2Mixer
from reorder_mamba.mamba2_reference import state_space_dual_reference
from reorder_mamba.mamba2_settings import Mamba2MixerSettings
from reorder_mamba.state_space_dual import CHUNK, state_space_dual
from torch import Tensor, nn

from reorder_core import Context, Grid

Shape = tuple[int, ...]
Run = Callable[..., Tensor]

SHAPES: list[Shape] = [(16, 64, 4, 64, 64), (8, 196, 12, 64, 64), (2, 1024, 12, 64, 128)]


def ours(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    return state_space_dual(x, dt, A, B, C, D, backend="torch")


def unbound_loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """All factors first, then a loop over unbound views under plain autograd."""
    decays = torch.exp(dt * A)[..., None, None].unbind(1)
    writes = (B.unsqueeze(-1) * (dt.unsqueeze(-1) * x).unsqueeze(-2)).unbind(1)
    h = torch.zeros_like(writes[0])
    outputs = []
    for decay, write, read in zip(decays, writes, C.unsqueeze(-2).unbind(1), strict=True):
        h = decay * h + write
        outputs.append((read @ h).squeeze(-2))
    return torch.stack(outputs, dim=1) + x * D.unsqueeze(-1)


def transformers_scan(chunk: int) -> Run:
    def run(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        from transformers.models.mamba2 import modeling_mamba2
        from transformers.utils import logging

        logging.set_verbosity_error()  # it says that it runs without mamba-ssm
        y: Tensor = modeling_mamba2.mamba2_chunk_scan(x, dt, A, B, C, chunk_size=chunk, D=D)
        return y

    return run


SCANS: dict[str, tuple[str, Run]] = {
    "ours": (f"reorder_mamba, chunks of {CHUNK}", ours),
    "transformers": (f"transformers, chunks of {CHUNK}", transformers_scan(CHUNK)),
    "transformers_256": ("transformers, its chunks of 256", transformers_scan(256)),
    "loop": ("recurrence, unbound views", unbound_loop),
    "twin": ("recurrence, the twin", state_space_dual_reference),
}


def scan_inputs(shape: Shape) -> list[Tensor]:
    """x, dt, A, B, C, D as a fresh model has them: steps of 0.001 to 0.1, rates of 1 to 16, one group."""
    B, L, H, P, N = shape
    draw = torch.Generator().manual_seed(0)
    tensors = (
        torch.randn(B, L, H, P, generator=draw),
        0.1 * torch.rand(B, L, H, generator=draw),
        -1 - 15 * torch.rand(H, generator=draw),
        torch.randn(B, L, 1, N, generator=draw),
        torch.randn(B, L, 1, N, generator=draw),
        torch.ones(H),
    )
    return [tensor.requires_grad_() for tensor in tensors]


def mixers(shape: Shape) -> dict[str, tuple[str, nn.Module]]:
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer as TheirMixer

    _, _, H, P, N = shape
    width = H * P // 2
    config = Mamba2Config(
        hidden_size=width, num_heads=H, head_dim=P, state_size=N, n_groups=1, num_hidden_layers=1, chunk_size=CHUNK
    )
    theirs = TheirMixer(config, layer_idx=0)
    own = Mamba2Mixer(Mamba2MixerSettings(state=N, head_width=P, scan="torch"), Context(Grid(1, shape[1]), width=width))
    own.load_state_dict(theirs.state_dict())
    return {
        "ours": ("reorder_mamba's mixer", own),
        "transformers": (f"transformers' Mamba2Mixer, chunks of {CHUNK}", theirs),
    }


def once(way: Run, inputs: list[Tensor], wanted: list[Tensor], dy: Tensor) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    start = time.perf_counter()
    y = way(*inputs)
    middle = time.perf_counter()
    torch.autograd.grad(y, wanted, dy)
    return middle - start, time.perf_counter() - middle


def cases(kind: str, shape: Shape) -> dict[str, tuple[str, Run, list[Tensor], list[Tensor], Tensor]]:
    """Way: its title, what runs, its inputs, what gets a gradient, and the gradient of the output."""
    torch.manual_seed(0)
    if kind == "scan":
        inputs, dy = scan_inputs(shape), torch.randn(shape[:4])
        return {name: (title, way, inputs, inputs, dy) for name, (title, way) in SCANS.items()}
    B, L, H, P, _ = shape
    tokens = torch.randn(B, L, H * P // 2, requires_grad=True)
    dy = torch.randn_like(tokens)
    return {
        name: (title, module, [tokens], [tokens, *module.parameters()], dy)
        for name, (title, module) in mixers(shape).items()
    }


def resident(key: str) -> float:
    """A size of this process in MiB, as the kernel counts it."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def print_peak(kind: str, name: str, shape: Shape) -> None:
    """MiB that one forward and backward pass adds; run in a process of its own."""
    once(*cases(kind, (1, 8, 2, 8, 4))[name][1:])  # what torch sets up at its first pass does not count
    case = cases(kind, shape)[name][1:]
    before = resident("VmRSS")
    once(*case)
    print(resident("VmHWM") - before)


def peak(kind: str, name: str, shape: Shape, threads: int) -> float | None:
    if not Path("/proc/self/status").exists():
        return None
    numbers = ["--shape", *map(str, shape), "--threads", str(threads)]
    command = [sys.executable, __file__, "--peak", kind, name, *numbers]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def table(kind: str, shape: Shape, repeats: int, threads: int) -> str:
    B, L, H, P, N = shape
    ways = cases(kind, shape)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, (_, *case) in ways.items():
            if name == "twin" and turn != 1:
                continue
            seconds = once(*case)
            if turn:  # the first turn warms up
                rows[name].append(seconds)
    lines = [
        f"{kind}, (B, L, heads, P, N) = ({B}, {L}, {H}, {P}, {N}), float32, {threads} threads, "
        f"torch {torch.__version__}, {platform.machine()}",
        "",
        "| way | forward ms | backward ms | both ms | times ours | peak MiB | times ours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    own_time = own_peak = 0.0
    for name, (title, *_) in ways.items():
        forward, backward = (statistics.median(row[part] for row in rows[name]) for part in (0, 1))
        both, memory = statistics.median(sum(row) for row in rows[name]), peak(kind, name, shape, threads)
        if name == "ours":
            own_time, own_peak = both, max(memory or 0.0, 1.0)
        spent = "n/a | n/a" if memory is None else f"{memory:.0f} | {memory / own_peak:.1f}"
        cells = f"{forward * 1e3:.1f} | {backward * 1e3:.1f} | {both * 1e3:.1f} | {both / own_time:.1f}"
        lines.append(f"| {title} | {cells} | {spent} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=5, metavar=("B", "L", "H", "P", "N"), help="left out: three shapes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shapes: list[Shape] = [tuple(given.shape)] if given.shape else SHAPES
    if given.peak:
        print_peak(*given.peak, shapes[0])
        return
    tables = []
    for shape in shapes:
        for kind in ("scan", "mixer"):
            tables.append(table(kind, shape, given.repeats, given.threads))
            print(tables[-1] + "\n", flush=True)
    if given.out:
        given.out.write_text("\n\n".join(tables) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
