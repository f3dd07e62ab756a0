"""How long the named curves take, and those that are fitted to images: median of several repetitions.

    python benchmarks/orderings.py [--repeat 7]

Hilbert is to take less than 2 ms on 14x14 and less than 1 s on 1024x1024; greedy_similarity is to be fitted to 256
images of 14x14 patches in less than 2 s. The exit code is 1 where one is not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from reorder_core import ComponentRef, Context, Grid, Ordering
from reorder_core.catalogue import Catalogue

CURVES = ("row_major", "column_major", "snake", "diagonal", "zigzag", "spiral", "hilbert", "morton", "peano", "random")
GRIDS = (Grid(14, 14), Grid(64, 64), Grid(224, 160), Grid(1024, 1024))
LIMITS = {("hilbert", Grid(14, 14)): 2e-3, ("hilbert", Grid(1024, 1024)): 1.0}
FITTED = {"spectral": float("inf"), "greedy_similarity": 2.0}  # with the most seconds that a fit may take
FITTED_GRID, IMAGES = Grid(14, 14), (256, 1, 56, 56)


def median_seconds(ordering: Ordering, grid: Grid, repeat: int) -> float:
    """Median time of one call of `permutation`, in seconds; small grids are called many times a repetition."""
    calls = max(1, 20_000 // grid.size)
    ordering.permutation(grid)
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        for _ in range(calls):
            ordering.permutation(grid)
        times.append((time.perf_counter() - begin) / calls)
    return statistics.median(times)


def median_fit(ordering: Any, repeat: int) -> float:
    """Median time of one call of `fit`, in seconds, with images of noise: of all the slowest to find a tour through."""
    images_nCHW = np.random.default_rng(0).random(IMAGES, dtype=np.float32)
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        ordering.fit(images_nCHW, FITTED_GRID, None)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    catalogue = Catalogue.load()
    table = Table("ordering", *(str(grid) for grid in GRIDS), title=f"milliseconds a call, median of {repeat}")
    late = []
    for name in CURVES:
        ordering = catalogue.build(ComponentRef("ordering", name), Context(GRIDS[0]))
        seconds = {grid: median_seconds(ordering, grid, repeat) for grid in GRIDS}
        late += [(name, grid) for grid in GRIDS if seconds[grid] > LIMITS.get((name, grid), float("inf"))]
        table.add_row(name, *(f"{1000 * value:.3f}" for value in seconds.values()))
    Console().print(table)
    for name, limit in FITTED.items():
        seconds_fit = median_fit(catalogue.build(ComponentRef("ordering", name), Context(FITTED_GRID)), repeat)
        print(f"{name}, fitted to {IMAGES[0]} images of {FITTED_GRID} patches: {seconds_fit:.3f} s")
        late += [(name, FITTED_GRID)] if seconds_fit > limit else []
    for name, grid in late:
        limit = LIMITS.get((name, grid), FITTED.get(name, 0))
        print(f"{name} on {grid} takes longer than {1000 * limit:g} ms", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
