"""Throughput of the compressibility prior's inner loop, in strings (images × orders) a second, beside plain LZMA.

    python benchmarks/compression.py [--strings 800] [--repeat 9] [--workers 2] [--strict]

Strings of 64 and 196 tokens, one byte each: random codes, and codes that repeat as those of images do. What is
compared, alternating in one process, median of several repetitions:

  plain      raw LZMA2 by `lzma.compress` with the preset's dictionary of 8 MiB, one thread
  sized      the compressor `lzma`, its dictionary as long as the string, one thread
  threads    the same from a pool of threads, a batch of strings a task, as `reorder prior` does
  prior      the same pool, with the codes put in order and packed first
  limit      the same strings compressed by as many separate processes: no lock is shared, so that this is what liblzma
             itself does on these cores

The bars: sized is at least 6 times plain, threads with two workers at least 10 times. `--strict` makes the exit code 1
where one is missed; a busy machine spoils `threads` and `limit` alike, so look at their ratio as well.
"""

from __future__ import annotations

import argparse
import lzma
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
from reorder_compressors.lzma2 import Lzma
from reorder_compressors.settings import LzmaSettings
from reorder_prior.packing import pack_rows
from rich.console import Console
from rich.table import Table

from reorder_core import Context, Grid

BATCH = 100
"""strings a task of a pool"""

BARS = {"sized": 6.0, "threads": 10.0}
PLAIN = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 8 << 20}]
SIZED = Lzma(LzmaSettings(), Context(Grid(1, 1)))


def token_strings(kind: str, count: int, length: int) -> np.ndarray:
    """uint8 [count, length]: `random` codes out of 64, or `runs` as long as those of quiet parts of an image."""
    draw = np.random.default_rng(length)
    codes = draw.integers(0, 64, (count, length), dtype=np.uint8)
    if kind == "random":
        return codes
    start = np.where(draw.random((count, length)) < 0.3, np.arange(length), 0)
    return np.take_along_axis(codes % 16, np.maximum.accumulate(start, axis=1), axis=1)


def plain_sizes(strings: Sequence[bytes]) -> list[int]:
    return [len(lzma.compress(string, format=lzma.FORMAT_RAW, filters=PLAIN)) for string in strings]


def sized_sizes(strings: Sequence[bytes]) -> list[int]:
    return [SIZED.size(string) for string in strings]


def ordered_sizes(codes_BN: np.ndarray) -> list[int]:
    order_N = np.arange(codes_BN.shape[1])[::-1]
    return [SIZED.size(row.tobytes()) for row in pack_rows(codes_BN[:, order_N], 256, 1)]


def spread(pool: Executor, work: Callable[..., list[int]], batches: Sequence[Sequence[bytes]]) -> list[int]:
    return [size for sizes in pool.map(work, batches) for size in sizes]


def medians(ways: dict[str, Callable[[], list[int]]], repeat: int) -> dict[str, float]:
    """Seconds a call, by way: each way once a round, so that what else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(repeat):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(
    kind: str, length: int, count: int, repeat: int, threads: Executor, processes: Executor
) -> dict[str, float]:
    """Strings a second, by way."""
    codes = token_strings(kind, count, length)
    strings = [row.tobytes() for row in codes]
    assert plain_sizes(strings) == sized_sizes(strings), "the sized dictionary must give the same bytes"
    batches = [strings[i : i + BATCH] for i in range(0, count, BATCH)]
    rows = [codes[i : i + BATCH] for i in range(0, count, BATCH)]
    ways = {
        "plain": lambda: plain_sizes(strings),
        "sized": lambda: sized_sizes(strings),
        "threads": lambda: spread(threads, sized_sizes, batches),
        "prior": lambda: spread(threads, ordered_sizes, rows),
        "limit": lambda: spread(processes, sized_sizes, batches),
    }
    return {name: count / seconds for name, seconds in medians(ways, repeat).items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=800)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--strict", action="store_true")
    asked = parser.parse_args()
    table = Table(title=f"strings a second (times plain), {asked.workers} workers on {os.cpu_count()} cores")
    for head in ("tokens", "plain", "sized", "threads", "prior", "limit", "threads / limit"):
        table.add_column(head, justify="right")
    missed = []
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(asked.workers) as threads, ProcessPoolExecutor(asked.workers, spawn) as processes:
        for kind, length in ((kind, length) for kind in ("random", "runs") for length in (64, 196)):
            found = measure(kind, length, asked.strings, asked.repeat, threads, processes)
            times = {name: rate / found["plain"] for name, rate in found.items()}
            cells = (f"{found[name]:,.0f} ({times[name]:.1f}×)" for name in found)
            table.add_row(f"{length} {kind}", *cells, f"{found['threads'] / found['limit']:.2f}")
            missed += [f"{length} {kind}: {name} {times[name]:.1f}×" for name in BARS if times[name] < BARS[name]]
    Console().print(table)
    for line in missed:
        print(f"below the bar: {line}", file=sys.stderr)
    return 1 if missed and asked.strict else 0


if __name__ == "__main__":
    sys.exit(main())
