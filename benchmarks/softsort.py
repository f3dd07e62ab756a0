"""Soft orders applied to tokens, forward and backward, against the plain form: the matrix, then its product.

    python benchmarks/softsort.py                  # times and peak memory, side by side
    python benchmarks/softsort.py --policies       # a step of each policy at N = 4,096

Both sides run in one process, in turn, on the same float32 tokens of `--batch` images and `--width` features; times are
medians of `--repeats`, after one pass that is not counted. The plain form is the paper's matrix under autograd, made
once for all images. Peak memory is that of a process of its own for each row: the highest resident set (VmHWM of
/proc/self/status, Linux) while one pass runs, less the resident set just before, tokens and their gradients included
on both sides alike. Targets for SoftSort: at least 2x as fast at N = 1,024 and 6x at N = 4,096, with at most 1/4 of the
memory.
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

import numpy as np
import torch
from reorder_softsort.lapsum import LapSumRows
from reorder_softsort.neuralsort import NeuralSortRows
from reorder_softsort.policy import SoftSort
from reorder_softsort.reference import neuralsort_matrix, softsort_matrix
from reorder_softsort.scores import falling
from reorder_softsort.settings import ShuffleSoftSortSettings, SoftSortSettings
from reorder_softsort.shuffle import ShuffleSoftSort
from reorder_softsort.soft_order import MakeRows, SoftOrder, read
from reorder_softsort.softsort import SoftSortRows
from torch import Tensor

from reorder_core import Clock, Context, Grid, Outcome

Way = Callable[[], object]
TAU = 1.0
OURS: dict[str, tuple[MakeRows, bool]] = {
    "SoftSort": (SoftSortRows, False),
    "SoftSort, straight-through": (SoftSortRows, True),
    "LapSum, straight-through": (LapSumRows, True),
    "NeuralSort, straight-through": (NeuralSortRows, True),
}
PLAIN = {"plain SoftSort": softsort_matrix, "plain NeuralSort": neuralsort_matrix}


def ways(given: argparse.Namespace, n: int) -> dict[str, Way]:
    """One pass forward and backward each, to the tokens and to the scores; scores stand about a slot apart."""
    draw = torch.Generator().manual_seed(0)
    scores_N = (torch.randn(n, generator=draw) * n / 12**0.5).requires_grad_()
    tokens_BND = torch.randn(given.batch, n, given.width, generator=draw).requires_grad_()
    grad_BND = torch.randn(given.batch, n, given.width, generator=draw)

    def backward(y_BND: Tensor) -> object:
        return torch.autograd.grad(y_BND, (scores_N, tokens_BND), grad_BND)

    def ours(make: MakeRows, straight_through: bool) -> Way:
        def run() -> object:
            falling_N, source_N = falling(scores_N.double())
            order = SoftOrder(falling_N, source_N, torch.arange(n))
            return backward(read(order, tokens_BND, TAU, make, straight_through))

        return run

    def plain(matrix: Callable[[Tensor, float], Tensor]) -> Way:
        return lambda: backward(matrix(scores_N, TAU) @ tokens_BND)

    return {name: plain(matrix) for name, matrix in PLAIN.items()} | {name: ours(*how) for name, how in OURS.items()}


def steps(given: argparse.Namespace, n: int) -> dict[str, Way]:
    """A learning step of each policy: draw, read, backward, observe, AdamW."""
    side = int(n**0.5)
    tokens_BND = torch.randn(given.batch, n, given.width, generator=torch.Generator().manual_seed(0))
    clock = Clock(5, 10, 0, 10, 10)
    outcome = Outcome(torch.zeros(1, given.batch), torch.arange(given.batch), clock)

    def step(made: SoftSort | ShuffleSoftSort) -> Way:
        optimizer = torch.optim.AdamW(made.parameters(), lr=0.3, weight_decay=0.0)

        def run() -> object:
            draw = made.draw(given.batch, None, made.temperature(clock))
            assert draw.soft is not None
            torch.autograd.backward(draw.soft(tokens_BND).square().mean())
            made.observe(draw, outcome)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return None

        return run

    def context() -> Context:
        return Context(Grid(side, n // side), prior_N=np.arange(n), generator=torch.Generator().manual_seed(0))

    return {
        "policy softsort": step(SoftSort(SoftSortSettings(), context())),
        "policy softsort, relaxation: lapsum": step(SoftSort(SoftSortSettings(relaxation="lapsum"), context())),
        "policy shuffle_softsort": step(ShuffleSoftSort(ShuffleSoftSortSettings(), context())),
    }


def milliseconds(ways: dict[str, Way], repeats: int) -> dict[str, float]:
    """The median of each way, taken in turn."""
    rows: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                rows[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(row) for name, row in rows.items()}


def resident(key: str) -> float:
    """A size of this process in MiB, as the kernel counts it."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def print_peak(given: argparse.Namespace) -> None:
    """MiB that one pass adds; run in a process of its own."""
    make = steps if given.policies else ways
    make(given, 64)[given.peak]()  # what torch sets up at its first pass does not count
    way = make(given, given.lengths[0])[given.peak]
    before = resident("VmRSS")
    way()
    print(resident("VmHWM") - before)


def peak(given: argparse.Namespace, n: int, name: str) -> float:
    """Not a number where the system does not tell."""
    if not Path("/proc/self/status").exists():
        return float("nan")
    numbers = {"lengths": n, "threads": given.threads, "batch": given.batch, "width": given.width}
    options = [part for key, value in numbers.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, __file__, "--peak", name, *options, *(["--policies"] if given.policies else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(given: argparse.Namespace) -> list[str]:
    lines = ["| N | way | ms | plain / ours | peak MiB | ours / plain |", "|---:|---|---:|---:|---:|---:|"]
    for n in given.lengths:
        made = steps(given, n) if given.policies else ways(given, n)
        times = milliseconds(made, given.repeats)
        peaks = {name: peak(given, n, name) for name in times}
        for name, taken in times.items():
            base = "plain NeuralSort" if "NeuralSort" in name else "plain SoftSort"
            against = (f"{times[base] / taken:.1f}x", f"{peaks[name] / peaks[base]:.2f}") if base in times else ("", "")
            lines.append(f"| {n} | {name} | {taken:.1f} | {against[0]} | {peaks[name]:.0f} | {against[1]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="+")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.lengths = given.lengths or ([4096] if given.policies else [196, 1024, 4096])
    if given.peak:
        print_peak(given)
        return
    print(
        f"{given.batch} images of {given.width} features, float32, forward and backward, tau {TAU} slot, "
        f"{given.threads} threads, torch {torch.__version__}, {platform.machine()}\n"
    )
    print("\n".join(table(given)))


if __name__ == "__main__":
    main()
