"""How long the named curves take: median of several repetitions, small grids in milliseconds, large ones in seconds.

    python benchmarks/orderings.py [--repeat 7]

Hilbert is to take less than 2 ms on 14x14 and less than 1 s on 1024x1024; the exit code is 1 where it does not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from rich.console import Console
from rich.table import Table

from reorder_core import ComponentRef, Context, Grid, Ordering
from reorder_core.catalogue import Catalogue

CURVES = ("row_major", "column_major", "snake", "diagonal", "zigzag", "spiral", "hilbert", "morton", "peano", "random")
GRIDS = (Grid(14, 14), Grid(64, 64), Grid(224, 160), Grid(1024, 1024))
LIMITS = {("hilbert", Grid(14, 14)): 2e-3, ("hilbert", Grid(1024, 1024)): 1.0}


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
    for name, grid in late:
        print(f"{name} on {grid} takes longer than {1000 * LIMITS[name, grid]:g} ms", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
