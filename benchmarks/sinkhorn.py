"""The Sinkhorn operator, forward and backward: ours against the plain log-space form under autograd.

    python benchmarks/sinkhorn.py [--threads 1] [--out sinkhorn.md]

Scores are a policy's first ones: logits that prefer one order, plus Gumbel noise, over τ. Both forms run in one process
and take turns on the same float32 scores; times are medians. Peak memory is that of a process of its own for each: the
highest resident set (VmHWM of /proc/self/status, Linux) in one forward and backward pass, less the resident set before.
Targets at 20 iterations: 3x at N = 196; 7x with at most 1/8 of the memory at N = 1,024.

Then one step of the policy: what drawing, reading (backward) and matching cost beside the operator.
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
from reorder_sinkhorn.policy import GumbelSinkhorn, gumbel_noise
from reorder_sinkhorn.reference import sinkhorn_reference
from reorder_sinkhorn.settings import GumbelSinkhornSettings
from reorder_sinkhorn.sinkhorn import sinkhorn
from reorder_sinkhorn.soft_order import harden
from torch import Tensor

from reorder_core import Context, Grid

FORMS: dict[str, Callable[[Tensor, int], Tensor]] = {"ours": sinkhorn, "plain": sinkhorn_reference}
SIDES, TEMPERATURES = (8, 14, 32), (1.0, 0.2)
BATCH, WIDTH = 64, 192


def policy(side: int, orders: int) -> GumbelSinkhorn:
    context = Context(Grid(side, side), prior_N=np.arange(side**2), generator=torch.Generator().manual_seed(0))
    return GumbelSinkhorn(GumbelSinkhornSettings(orders=orders), context)  # type: ignore[call-arg]


def scores(side: int, temperature: float) -> Tensor:
    made = policy(side, 1)
    noisy_NN = made.logits().detach() + gumbel_noise(side**2, made.generator)
    return (noisy_NN / temperature).requires_grad_()


def once(form: str, scores_NN: Tensor, weights_NN: Tensor, iterations: int) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    start = time.perf_counter()
    soft_NN = FORMS[form](scores_NN, iterations)
    middle = time.perf_counter()
    torch.autograd.grad(soft_NN, scores_NN, weights_NN)
    return middle - start, time.perf_counter() - middle


def milliseconds(side: int, temperature: float, iterations: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Median forward and backward times of each form, taking turns, after two to warm up."""
    scores_NN = scores(side, temperature)
    weights_NN = torch.rand(scores_NN.shape)
    rows: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for repeat in range(repeats + 2):
        for form, row in rows.items():
            seconds = once(form, scores_NN, weights_NN, iterations)
            if repeat >= 2:
                row.append(seconds)
    return {
        form: (statistics.median(f for f, _ in row) * 1e3, statistics.median(b for _, b in row) * 1e3)
        for form, row in rows.items()
    }


def resident(key: str) -> float:
    """A size of this process in MiB, as the kernel counts it."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def print_peak(form: str, side: int, iterations: int) -> None:
    """MiB that one forward and backward pass adds; run in a process of its own."""
    once(form, scores(4, 1.0), torch.rand(16, 16), iterations)  # what torch sets up at its first pass does not count
    scores_NN = scores(side, 1.0)
    weights_NN = torch.rand(scores_NN.shape)
    before = resident("VmRSS")
    once(form, scores_NN, weights_NN, iterations)
    print(resident("VmHWM") - before)


def peak(form: str, side: int, given: argparse.Namespace) -> float | None:
    if not Path("/proc/self/status").exists():
        return None
    options = ["--side", str(side), "--threads", str(given.threads), "--iterations", str(given.iterations)]
    command = [sys.executable, __file__, "--peak", form, *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def operator_table(given: argparse.Namespace) -> list[str]:
    lines = [
        "| N | τ | ours ms (forward + backward) | plain ms | times as fast | ours MiB | plain MiB | share |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for side in SIDES:
        peaks = {form: peak(form, side, given) for form in FORMS}
        ours_MiB, plain_MiB = peaks["ours"], peaks["plain"]
        small = side < 14 or ours_MiB is None or plain_MiB is None  # pages and pools, not matrices
        memory = "n/a | n/a | n/a" if small else f"{ours_MiB:.1f} | {plain_MiB:.1f} | 1/{plain_MiB / ours_MiB:.1f}"  # type: ignore[operator]
        for temperature in TEMPERATURES:
            found = milliseconds(side, temperature, given.iterations, given.repeats if side < 32 else 7)
            (f, b), plain = found["ours"], sum(found["plain"])
            lines.append(
                f"| {side**2} | {temperature} | {f + b:.2f} ({f:.2f} + {b:.2f}) | {plain:.2f} | "
                f"{plain / (f + b):.1f} | {memory} |"
            )
    return lines


def median_ms(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1e3


def step_table(repeats: int) -> list[str]:
    """One step with `orders` orders of a batch of tokens: draw; matching within it; read and back to the logits."""
    lines = ["| N | orders | draw ms | of which matching | read + backward ms |", "|---:|---:|---:|---:|---:|"]
    for side, orders in ((8, 8), (14, 8), (32, 1)):
        made, tokens_BND = policy(side, orders), torch.randn(BATCH, side**2, WIDTH, requires_grad=True)

        def step(made: GumbelSinkhorn = made, tokens_BND: Tensor = tokens_BND) -> float:
            draw = made.draw(BATCH, None, 0.5)
            start = time.perf_counter()
            assert draw.soft is not None
            draw.soft(tokens_BND).sum().backward()
            return time.perf_counter() - start

        few = repeats if side < 32 else 3
        back = statistics.median([step() for _ in range(few + 1)][1:]) * 1e3
        draw = median_ms(lambda made=made: made.draw(BATCH, None, 0.5), few)  # type: ignore[misc]
        noisy = [made.logits().detach() + gumbel_noise(side**2, made.generator) for _ in range(orders)]
        matching = median_ms(lambda noisy=noisy: [harden(noisy_NN) for noisy_NN in noisy], few)  # type: ignore[misc]
        lines.append(f"| {side**2} | {orders} | {draw:.2f} | {matching:.2f} | {back:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--peak", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=14, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print_peak(given.peak, given.side, given.iterations)
        return
    head = (
        f"{given.iterations} iterations, float32, torch {torch.__version__}, {given.threads} threads, "
        f"{platform.machine()}"
    )
    note = f"One step of the policy, batch {BATCH}, width {WIDTH}, τ = 0.5:"
    text = "\n".join([head, "", *operator_table(given), "", note, "", *step_table(min(given.repeats, 11))])
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
