"""Time of the selective scan on a CUDA device, forward and backward, and its share of what memory bandwidth allows.

    python benchmarks/scan_cuda.py --out scan_cuda.md
    python benchmarks/scan_cuda.py --sweep

bfloat16 inputs, float32 A, D and bias; with skip, gate, bias and softplus. Each way gets its inputs in the layout it
wants. Times are medians between CUDA events, the L2 cache overwritten before each repetition; the reference paths take
seconds, so they run once. mamba-ssm's compiled scan runs where it is built; its reference path, and its one Triton
kernel for Mamba-1 (a step; forward only), need the package alone (MAMBA_SKIP_CUDA_BUILD=TRUE pip install
--no-build-isolation mamba-ssm), else the twin of the room stands for the reference path.

The share of bandwidth counts what must move: each input read once and each result written once in the forward pass,
and once more in the backward pass, with the gradients; not what a way keeps or reads twice for itself.
`--sweep` times the Triton kernels with other constants than those of `reorder_mamba.triton_scan`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from reorder_mamba import triton_scan
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import Backend, selective_scan, why_not_mamba_ssm, why_not_triton
from torch import Tensor

Shape = tuple[int, int, int, int]
Inputs = dict[str, Tensor]
Way = Callable[[Inputs], Tensor]

SHAPES: list[Shape] = [(64, 768, 196, 16), (16, 768, 1024, 16), (2, 768, 16384, 16)]
"""(B, D, L, N)"""

PEAK = {"H200": 4.8e12, "H100 NVL": 3.9e12, "H100 PCIe": 2.0e12, "H100": 3.35e12, "A100": 2.04e12}
"""Bytes a second by the vendor's data sheets; of a name's matches the first counts."""

CHANNELS_FIRST = ("u", "delta", "B", "C", "z")


def inputs(shape: Shape, channels_first: bool) -> Inputs:
    B, D, L, N = shape
    draw = torch.Generator("cuda").manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw, device="cuda")

    half = {"u": normal(B, L, D), "delta": normal(B, L, D) - 3, "B": normal(B, L, N), "C": normal(B, L, N)}
    half = {name: value.bfloat16() for name, value in (half | {"z": normal(B, L, D)}).items()}
    if channels_first:
        half = {name: value.mT.contiguous() for name, value in half.items()}
    rates = -torch.arange(1.0, N + 1, device="cuda").repeat(D, 1)
    single = {"A": rates, "D": torch.ones(D, device="cuda"), "bias": 0.1 * normal(D)}
    return {name: value.requires_grad_() for name, value in (half | single).items()}


def ours(backend: Backend) -> Way:
    def run(x: Inputs) -> Tensor:
        return selective_scan(x["u"], x["delta"], x["A"], x["B"], x["C"], x["D"], x["z"], x["bias"], True, backend)

    return run


def twin(x: Inputs) -> Tensor:
    return selective_scan_reference(x["u"], x["delta"], x["A"], x["B"], x["C"], x["D"], x["z"], x["bias"], True)


def theirs(function: Callable[..., Tensor]) -> Way:
    def run(x: Inputs) -> Tensor:
        return function(x["u"], x["delta"], x["A"], x["B"], x["C"], x["D"], x["z"], x["bias"], delta_softplus=True)

    return run


def their_step(update: Callable[..., Tensor]) -> Way:
    """mamba-ssm's Triton kernel for one step, launched for each."""

    def run(x: Inputs) -> Tensor:
        state_BDN = x["A"].new_zeros(x["u"].shape[0], *x["A"].shape)
        steps = zip(*(x[name].unbind(1) for name in ("u", "delta", "B", "C", "z")), strict=True)
        outputs = [
            update(state_BDN, u, delta, x["A"], B, C, x["D"], z, x["bias"], dt_softplus=True)
            for u, delta, B, C, z in steps
        ]
        return torch.stack(outputs, dim=1)

    return run


def ways() -> dict[str, tuple[Way, bool, int | None]]:
    """Title: the way, whether it wants channels first, and the repetitions it is worth (None: as many as asked)."""
    found: dict[str, tuple[Way, bool, int | None]] = {}
    if missing := why_not_triton("cuda", torch.bfloat16):
        print(f"without ours, Triton: {missing}")
    else:
        found["ours, Triton"] = (ours("triton"), False, None)
    found["ours, torch"] = (ours("torch"), False, 3)
    missing = why_not_mamba_ssm("cuda", torch.bfloat16)
    if missing:
        print(f"without mamba-ssm's compiled scan: {missing}")
        sys.modules["selective_scan_cuda"] = ModuleType("selective_scan_cuda")  # lets the package's Python be imported
    try:
        from mamba_ssm.ops import selective_scan_interface
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update
    except Exception as error:  # what a package without its extensions raises is its own affair
        print(f"the twin stands for mamba-ssm's reference path ({type(error).__name__}: {error})")
        found["the twin (form of mamba-ssm's reference)"] = (twin, False, 1)
        return found
    if not missing:
        found["mamba-ssm, compiled"] = (theirs(selective_scan_interface.selective_scan_fn), True, None)
    found["mamba-ssm, Triton step (forward only)"] = (their_step(selective_state_update), False, 3)
    found["mamba-ssm, reference"] = (theirs(selective_scan_interface.selective_scan_ref), True, 1)
    return found


def timed(way: Way, shape: Shape, channels_first: bool, repeats: int) -> tuple[float, float]:
    """Median milliseconds of the forward and of the backward pass; the latter is 0 for a way without one."""
    x = inputs(shape, channels_first)
    cache = torch.empty(2**28, dtype=torch.int8, device="cuda")
    dy = torch.ones_like(x["u"])
    rows = []
    first = 3 if repeats > 3 else 1  # repetitions before it count: kernels are compiled, memory is taken
    for repeat in range(first + repeats):
        start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        cache.zero_()
        start.record()
        y = way(x)
        middle.record()
        if y.requires_grad:
            torch.autograd.grad(y, list(x.values()), dy)
        end.record()
        torch.cuda.synchronize()
        if repeat >= first:
            rows.append((start.elapsed_time(middle), middle.elapsed_time(end) if y.requires_grad else 0.0))
    return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


def least_bytes(shape: Shape) -> tuple[int, int]:
    """What the forward and the backward pass must move: bfloat16 sequences, float32 A, D and bias."""
    B, D, L, N = shape
    channels, states, weights = 2 * B * L * D, 2 * B * L * N, 4 * (D * N + 2 * D)
    forward = 4 * channels + 2 * states + weights  # u, delta, z, y; B, C
    backward = 7 * channels + 4 * states + 2 * weights  # u, delta, z, dy, du, ddelta, dz; B, C, dB, dC
    return forward, backward


def peak_bandwidth(name: str, clock_khz: int = 0, bus_bits: int = 0) -> float:
    """Bytes a second: of the data sheet, else from the clock and width of the memory (two transfers a clock)."""
    return next((peak for part, peak in PEAK.items() if part in name), 2e3 * clock_khz * bus_bits / 8)


def table(shape: Shape, repeats: int, peak: float, slow: bool) -> str:
    both_bytes = sum(least_bytes(shape))
    lines = [
        f"(B, D, L, N) = {shape}: {both_bytes / 1e6:.0f} MB to move, {both_bytes / peak * 1e3:.3f} ms at the peak",
        "",
        "| way | forward ms | backward ms | both ms | times ours | share of bandwidth |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    own = 0.0
    for title, (way, channels_first, worth) in ways().items():
        if worth is not None and not slow:
            continue
        try:
            forward, backward = timed(way, shape, channels_first, worth or repeats)
        except torch.cuda.OutOfMemoryError:
            lines.append(f"| {title} | out of memory | | | | |")
            continue
        both = forward + backward
        own = own or both
        if backward == 0:
            lines.append(f"| {title} | {forward:.3f} | n/a | n/a | n/a | n/a |")
            continue
        share = both_bytes / (both * 1e-3) / peak
        lines.append(f"| {title} | {forward:.3f} | {backward:.3f} | {both:.3f} | {both / own:.2f} | {share:.0%} |")
    return "\n".join(lines)


def sweep(repeats: int) -> str:
    """The Triton kernels with each choice of constants; the first line is the one that is built in."""
    built_in = (triton_scan.GROUP, triton_scan.EVERY, triton_scan.REGISTERS, triton_scan._SPARSE)
    constants = [
        choice for choice in itertools.product((2, 3, 4), (1, 2, 4), (128, 168, 255)) if choice[0] * choice[1] <= 8
    ]
    choices = [built_in, *((*choice, built_in[3]) for choice in constants), (*built_in[:3], 6), (*built_in[:3], 12)]
    lines = ["| group | every | registers | sparse | " + " | ".join(map(str, SHAPES)) + " |", "|---:" * 7 + "|"]
    for choice in choices:
        triton_scan.GROUP, triton_scan.EVERY, triton_scan.REGISTERS, triton_scan._SPARSE = choice
        cells = [*map(str, choice)]
        for shape in SHAPES:
            forward, backward = timed(ours("triton"), shape, False, repeats)
            cells.append(f"{forward:.3f} + {backward:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    triton_scan.GROUP, triton_scan.EVERY, triton_scan.REGISTERS, triton_scan._SPARSE = built_in
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, metavar=("B", "D", "L", "N"), help="only this one")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--fast", action="store_true", help="leave out all but the Triton and the compiled scan")
    parser.add_argument("--sweep", action="store_true", help="time other constants of the Triton kernels")
    parser.add_argument("--peak", type=float, help="bandwidth in bytes a second, where the device's is not known")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "scan_cuda.py times CUDA kernels, and torch finds no CUDA device here: run it where there is one"
        )
    device = torch.cuda.get_device_properties(0)
    clock, bus = getattr(device, "memory_clock_rate", 0), getattr(device, "memory_bus_width", 0)
    peak = given.peak or peak_bandwidth(device.name, clock, bus)
    if not peak:
        raise SystemExit(f"the bandwidth of {device.name} is not known here: give it with --peak, in bytes a second")
    if given.sweep:
        text = sweep(given.repeats)
    else:
        shapes = [tuple(given.shape)] if given.shape else SHAPES
        text = "\n\n".join(table(shape, given.repeats, peak, not given.fast) for shape in shapes)
        print(f"{device.name}, {peak / 1e12:.2f} TB/s, torch {torch.__version__}, bfloat16\n\n{text}")
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
