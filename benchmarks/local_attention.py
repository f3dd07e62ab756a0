"""Time and memory of local and sparse attention by length, against torch's attention with the same pairs as a mask.

    python benchmarks/local_attention.py --lengths 256 1024 4096 --out local_attention.md

Forward and backward of the attention alone (no projections), float32, in one process, both sides in turn; times are
medians. Peak memory is that of a process of its own for each way: the highest resident set (VmHWM of
/proc/self/status, Linux) while it runs, less the resident set just before. The mask is made beforehand on both sides.
The third column group is torch's attention without any mask: what full attention costs. Local blocks are 64 slots with
a reach of 64; the stride is the square root of the length; BigBird has blocks of 32, 2 global and 2 random ones.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from reorder_image_transformer.blocks import Blocks
from reorder_image_transformer.local_attention import local_attention, memory_mask
from reorder_sparse_transformer.big_bird import BigBird
from reorder_sparse_transformer.factorised import Combine, Factorised
from reorder_sparse_transformer.sequence_places import Places
from torch import Tensor
from torch.nn import functional

from reorder_core import Grid, Layout

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v [B, H, N, E] to [B, H, N, E]."""


def image_1d(N: int, heads: int) -> Attention:
    return _image(Blocks((1, N), (1, 64), (0, 64), (0, 64)), N)


def image_2d(N: int, heads: int) -> Attention:
    side = math.isqrt(N)
    return _image(Blocks((side, N // side), (8, 8), (4, 4), (4, 4)), N)


def _image(blocks: Blocks, N: int) -> Attention:
    mask = memory_mask(torch.arange(1, N + 1)[None, None, :, None], blocks, causal=False)[:, 0]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return local_attention(q, k, v, blocks, mask).unflatten(2, (q.shape[1], -1)).transpose(1, 2)

    return run


def factorised(pattern: Literal["strided", "fixed"], combine: Combine) -> Callable[[int, int], Attention]:
    return lambda N, heads: _sparse(Factorised(pattern, math.isqrt(N), 2, combine=combine), N, heads)


def big_bird(N: int, heads: int) -> Attention:
    return _sparse(BigBird(32, 2, 2, 0), N, heads)


def _sparse(pattern: Factorised | BigBird, N: int, heads: int) -> Attention:
    places = Places.of(Layout.fixed(Grid(1, N), torch.arange(N)))
    plan = pattern.plan(places, heads)
    return lambda q, k, v: pattern.attend(q, k, v, None, plan)  # type: ignore[arg-type]


def full(N: int, heads: int) -> Attention:
    return functional.scaled_dot_product_attention


WAYS: dict[str, Callable[[int, int], Attention]] = {
    "image_transformer, 1-D": image_1d,
    "image_transformer, 2-D": image_2d,
    "strided, merged": factorised("strided", "merged"),
    "strided, heads": factorised("strided", "heads"),
    "fixed, merged": factorised("fixed", "merged"),
    "fixed, heads": factorised("fixed", "heads"),
    "bigbird": big_bird,
    "full": full,
}


def pairs(way: str, N: int, heads: int) -> Tensor:
    """The mask of all pairs that a way sees, bool [1 or H, N, N]: found by asking it, 64 columns at a time."""
    attention = WAYS[way](N, heads)
    q = torch.zeros(1, heads, N, 64)
    columns = []
    for start in range(0, N, 64):
        v = torch.zeros(1, heads, N, 64)
        width = min(64, N - start)
        v[:, :, start : start + width, :width] = torch.eye(width)
        columns.append(attention(q, q, v)[0, :, :, :width] > 0)
    mask = torch.cat(columns, dim=-1)
    return mask[:1].clone() if bool((mask == mask[:1]).all()) else mask


def masked(way: str, N: int, heads: int) -> Attention:
    mask = pairs(way, N, heads)[None]
    return lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def once(attention: Attention, inputs: list[Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    y = attention(*inputs)
    torch.autograd.grad(y, inputs, torch.ones_like(y))
    return time.perf_counter() - start


def inputs_of(B: int, N: int, heads: int, width: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, N, 3, heads, width, generator=draw)  # as a projection leaves them
    return [part.transpose(1, 2).requires_grad_() for part in qkv.unbind(2)]


def resident(key: str) -> float:
    """A size of this process in MiB, as the kernel counts it."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def print_peak(given: argparse.Namespace, N: int) -> None:
    """MiB that one forward and backward pass adds; run in a process of its own."""
    once(full(64, 1), inputs_of(1, 64, 1, 8))  # what torch sets up at its first pass does not count
    inputs = inputs_of(given.batch, N, given.heads, given.width)
    attention = WAYS[given.peak](N, given.heads)
    if given.masked:  # which pairs a mask allows makes no difference to memory
        mask = torch.ones(1, 1, N, N, dtype=torch.bool)
        attention = lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # noqa: E731
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # making plan and mask does not count
    before = resident("VmRSS")
    once(attention, inputs)
    print(resident("VmHWM") - before)


def peak(given: argparse.Namespace, way: str, N: int, as_mask: bool = False) -> float | None:
    if not Path("/proc/self/clear_refs").exists():
        return None
    shape = ("--batch", given.batch, "--heads", given.heads, "--width", given.width, "--threads", given.threads)
    return measured_peak("--peak", way, "--lengths", N, *shape, *(["--masked"] if as_mask else []))


@cache
def measured_peak(*arguments: object) -> float:
    command = [sys.executable, __file__, *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def line(given: argparse.Namespace, way: str, N: int) -> str:
    """One row: ours, the same pairs as a mask, full attention: milliseconds and MiB."""
    inputs = inputs_of(given.batch, N, given.heads, given.width)
    sides = [WAYS[way](N, given.heads), masked(way, N, given.heads), full(N, given.heads)]
    times: list[list[float]] = [[], [], []]
    for repeat in range(given.repeats + 1):
        for side, attention in enumerate(sides):
            seconds = once(attention, inputs)
            if repeat:
                times[side].append(seconds * 1e3)
    ours, mask, whole = (statistics.median(found) for found in times)
    spent = [peak(given, way, N), peak(given, "full", N, as_mask=True), peak(given, "full", N)]
    memory = ["n/a" if mib is None else f"{mib:.0f}" for mib in spent]
    return (
        f"| {way} | {N} | {ours:.1f} | {mask:.1f} | {whole:.1f} | {mask / ours:.1f} | {whole / ours:.1f} | "
        f"{1e3 * ours / N / given.batch:.1f} | {' | '.join(memory)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--width", type=int, default=32, help="of a head")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[way for way in WAYS if way != "full"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--masked", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print_peak(given, given.lengths[0])
        return
    lines = [
        f"(B, H, E) = ({given.batch}, {given.heads}, {given.width}), float32, {given.threads} threads, "
        f"torch {torch.__version__}, {platform.machine()}, forward and backward",
        "",
        "| way | N | ours ms | masked ms | full ms | masked / ours | full / ours | µs a token "
        "| ours MiB | masked MiB | full MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way in given.ways:
        lines += [line(given, way, N) for N in given.lengths]
        print("\n".join(lines[-len(given.lengths) :]), flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
