"""How many pictures of `cluttered_digits` one core makes a second, and how long a batch takes.

    OMP_NUM_THREADS=1 python benchmarks/cluttered_digits.py [--repeat 5]

At least 2,000 pictures a second are wanted; the exit code is 1 where they are not reached.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from reorder_core import ComponentRef, Context, Dataset, Grid
from reorder_core.catalogue import Catalogue

WANTED = 2000.0
BATCH = 64


def built(**settings: object) -> Dataset:
    """The data set by its name, as a recipe would ask for it."""
    ref = ComponentRef("dataset", "cluttered_digits", settings)
    data: Dataset = Catalogue.load().build(ref, Context(Grid(8, 8), patch=4))
    return data


def median_seconds(call: Callable[[], object], repeat: int) -> float:
    """Median time of one call after one to warm up."""
    call()
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="repetitions, of which the median is shown")
    repeat = parser.parse_args().repeat

    table = Table("what", "pictures", "seconds", "pictures/s", title="cluttered_digits")
    count = 8192 + 2000
    whole = median_seconds(lambda: built(train=8192, validation=2000), repeat)
    table.add_row("build the data set", f"{count:,}", f"{whole:.3f}", f"{count / whole:,.0f}")
    for label, fresh in (("load a batch from memory", False), ("compose a batch (fresh: true)", True)):
        split = built(train=8192, validation=64, fresh=fresh).train
        batch = median_seconds(lambda split=split: split.load(range(BATCH), 3), 20 * repeat)  # type: ignore[misc]
        table.add_row(label, f"{BATCH}", f"{batch:.5f}", f"{BATCH / batch:,.0f}")
    Console().print(table)
    return 0 if count / whole >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
