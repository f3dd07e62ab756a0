"""Hilbert's curve, generalised to any rectangle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reorder_orderings.curve import Curve

Ints = NDArray[np.int64]


class _Blocks(NamedTuple):
    """Rectangles in reading order, entered at a corner: along `main` to the end, `cross` is the other side.

    start: number of the patch at the corner. main, cross: what a step adds to the patch number. length, breadth: sizes.
    """

    start: Ints
    main: Ints
    length: Ints
    cross: Ints
    breadth: Ints


def hilbert(rows: int, columns: int) -> Ints:
    """From the upper left corner along the longer side, int64 [rows * columns].

    Each step goes to a side neighbour, but for at most one, which is diagonal; only where the longer side is odd and
    the shorter even can there be one (no path of side steps joins two corners of one colour of a chessboard then).
    The recursion is Cerveny's (generalised Hilbert curve, 2018): a long block is halved, another one is read as
    there, across and back. All blocks of a level are divided at once, so that large grids take few NumPy calls.
    """
    wide = columns >= rows
    along, across = (1, columns) if wide else (columns, 1)
    sides = (columns, rows) if wide else (rows, columns)
    blocks = _Blocks(*(np.array([value]) for value in (0, along, sides[0], across, sides[1])))
    while ((blocks.length > 1) & (blocks.breadth > 1)).any():
        blocks = _divide(blocks)
    return _walk(blocks)


def _divide(b: _Blocks) -> _Blocks:
    """Every block that is no line in two or three, in reading order."""
    line = (b.length == 1) | (b.breadth == 1)
    halved = ~line & (2 * b.length > 3 * b.breadth)
    # Halves of even size, so that the path comes out at the right corner.
    length = b.length // 2
    length += (length % 2) & (b.length > 2) & halved
    breadth = b.breadth // 2
    breadth += (breadth % 2) & (b.breadth > 2)

    parts = np.where(line, 1, np.where(halved, 2, 3))
    first = np.cumsum(parts) - parts
    out = _Blocks(*(np.repeat(field, parts) for field in b))

    half, at = np.flatnonzero(halved), first[halved]
    out.length[at] = length[half]
    out.start[at + 1] += length[half] * b.main[half]
    out.length[at + 1] -= length[half]

    three, at = np.flatnonzero(parts == 3), first[parts == 3]
    start, main, cross = b.start[three], b.main[three], b.cross[three]
    near, far = breadth[three], length[three]
    _put(out, at, start, cross, near, main, far)
    _put(out, at + 1, start + near * cross, main, b.length[three], cross, b.breadth[three] - near)
    corner = start + (b.length[three] - 1) * main + (near - 1) * cross
    _put(out, at + 2, corner, -cross, near, -main, b.length[three] - far)
    return out


def _put(out: _Blocks, at: Ints, *values: Ints) -> None:
    for field, value in zip(out, values, strict=True):
        field[at] = value


def _walk(lines: _Blocks) -> Ints:
    """The patches of blocks that are lines, one after the other."""
    count = lines.length * lines.breadth
    step = np.where(lines.breadth == 1, lines.main, lines.cross)
    begins = np.cumsum(count) - count
    along = np.arange(count.sum()) - np.repeat(begins, count)
    patch_N: Ints = np.repeat(lines.start, count) + along * np.repeat(step, count)
    return patch_N


class Hilbert(Curve):
    """`hilbert` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return hilbert(rows, columns)
