"""The picture of the six orders in the README: `python docs/pictures/orders.py [orders.png]`."""

from __future__ import annotations

import sys
from pathlib import Path

from reorder_core import ComponentRef, Context, Grid
from reorder_core.catalogue import Catalogue
from reorder_core.drawing import draw_many_png

NAMES = ("row_major", "column_major", "hilbert", "spiral", "diagonal", "snake")


def main(path: Path) -> None:
    grid, catalogue = Grid(14, 14), Catalogue.load()
    context = Context(grid)
    built = {name: catalogue.build(ComponentRef("ordering", name), context) for name in NAMES}
    draw_many_png([(name, ordering.permutation(grid), grid) for name, ordering in built.items()], path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("orders.png"))
