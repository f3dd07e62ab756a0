"""Throughput of the whole of `reorder prior`, in images × orders a second: tokenise, order, pack, compress, count.

    python benchmarks/prior.py [--images 1024] [--size 32] [--patch 4] [--repeat 3] [--workers 2] [--distance 1]

Images of 3 channels lie in memory, so that no disk or decoder counts; the orders are those that `reorder prior` takes
by default, the tokenizer `uniform`, the compressor `lzma`. What is compared, alternating, median of several
repetitions, start-up left out:

  1 thread     `run_measure` with one thread beside the one that reads and tokenises
  N threads    the same with N
  N processes  N processes of one thread, each with its share of the blocks, as `accelerate launch` shares them out
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from reorder_prior.candidates import chance_candidates, default_candidates
from reorder_prior.measure import WHOLE, Measure, Share, run_measure
from rich.console import Console
from rich.table import Table

from reorder_core import ComponentRef, Context, DataFacts
from reorder_core.catalogue import Catalogue
from reorder_core.pixels import MemoryImages

SEED = 0


def images_of(count: int, size: int) -> MemoryImages:
    """Smooth random images, float32 [B, 3, H, W] in [0, 1]: sums of a few waves, as quiet as photographs are."""
    draw = np.random.default_rng(SEED)
    place_H = np.arange(size) / size
    total_BCHW = np.zeros((count, 3, size, size))
    for wave in range(1, 5):
        across, down = draw.uniform(0, wave, (2, count, 1, 1, 1))
        phase = draw.uniform(0, 2 * np.pi, (count, 3, 1, 1))
        total_BCHW += np.sin(2 * np.pi * (across * place_H + down * place_H[:, None]) + phase) / wave
    low, high = total_BCHW.min(), total_BCHW.max()
    return MemoryImages(((total_BCHW - low) / (high - low)).astype(np.float32))


def measure_of(size: int, patch: int, distances: tuple[int, ...]) -> Measure:
    catalogue = Catalogue.load()
    context = Context.of_data(DataFacts(size, size, 3), patch, SEED, catalogue.build)
    named, _ = default_candidates(catalogue, context)
    candidates = [*named, *chance_candidates(catalogue, context, named)]
    parts = [
        context.resolve(ComponentRef(kind, name)) for kind, name in (("tokenizer", "uniform"), ("compressor", "lzma"))
    ]
    return Measure(candidates, context.grid, patch, *parts, distances=distances)


def whole(count: int, size: int, patch: int, distances: tuple[int, ...], workers: int, share: Share = WHOLE) -> float:
    """Seconds that this process measures; its images are made before."""
    measure, images = measure_of(size, patch, distances), images_of(count, size)
    begin = time.perf_counter()
    run_measure(measure, images, range(count), SEED, workers, None, share)
    return time.perf_counter() - begin


def slowest(processes: ProcessPoolExecutor, number: int, work: Callable[..., float]) -> float:
    """Seconds of the process that takes longest: the others wait for it."""
    shares = [processes.submit(work, 1, Share(process, number)) for process in range(number)]
    return max(each.result() for each in shares)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--distance", type=int, default=1)
    asked = parser.parse_args()
    distances = tuple(sorted({1, asked.distance}))
    work = partial(whole, asked.images, asked.size, asked.patch, distances)
    orders = len(measure_of(asked.size, asked.patch, distances).candidates)
    seconds: dict[str, list[float]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.workers, spawn) as processes:
        ways = {
            "1 thread": lambda: work(1),
            f"{asked.workers} threads": lambda: work(asked.workers),
            f"{asked.workers} processes": lambda: slowest(processes, asked.workers, work),
        }
        for way in ways.values():
            way()
        for _ in range(asked.repeat):
            for name, way in ways.items():
                seconds.setdefault(name, []).append(way())
    cut = f"{asked.images} images of {asked.size} pixels, patches of {asked.patch}"
    title = f"{cut}, {orders} orders, {os.cpu_count()} cores"
    table = Table("", "images × orders a second", "lowest … highest", title=title)
    for name, found in seconds.items():
        low, middle, high = (
            asked.images * orders / each for each in (max(found), statistics.median(found), min(found))
        )
        table.add_row(name, f"{middle:,.0f}", f"{low:,.0f} … {high:,.0f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
