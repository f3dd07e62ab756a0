"""Peano's curve, generalised to any rectangle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reorder_orderings.curve import Curve

Ints = NDArray[np.int64]


class _Blocks(NamedTuple):
    """Rectangles in reading order, each read from its corner `start` to the opposite one.

    start: a patch number. down, right: what a step away from the corner adds to it. height, width: sizes.
    """

    start: Ints
    down: Ints
    height: Ints
    right: Ints
    width: Ints


def peano(rows: int, columns: int) -> Ints:
    """From the upper left corner to the lower right one, int64 [rows * columns] (Peano 1890).

    A block is divided in three each way and its nine parts are read down, up and down, each from corner to opposite
    corner. Here the outer parts of a side have odd length (the odd number nearest to a third), so that
    - on powers of three it is Peano's curve;
    - where a side is odd, each step goes to a side neighbour;
    - where both sides are even, exactly one step is diagonal: no path of side steps joins the two corners then.
    """
    blocks = _Blocks(*(np.array([value]) for value in (0, columns, rows, 1, columns)))
    while ((blocks.height > 2) | (blocks.width > 2)).any():
        blocks = _divide(blocks)
    return _walk(blocks)


def _divide(b: _Blocks) -> _Blocks:
    """Every block in three along each side of at least three, in reading order."""
    tall, broad = np.where(b.height > 2, 3, 1), np.where(b.width > 2, 3, 1)
    parts = tall * broad
    p = _Blocks(*(np.repeat(field, parts) for field in b))
    tall = np.repeat(tall, parts)
    index = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    column, step = index // tall, index % tall
    upward = column % 2
    row: Ints = np.where(upward == 1, tall - 1 - step, step)
    leftward = row % 2
    top, height = _third(p.height, row)
    left, width = _third(p.width, column)
    return _Blocks(
        start=p.start + (top + upward * (height - 1)) * p.down + (left + leftward * (width - 1)) * p.right,
        down=p.down * (1 - 2 * upward),
        height=height,
        right=p.right * (1 - 2 * leftward),
        width=width,
    )


def _third(side: Ints, part: Ints) -> tuple[Ints, Ints]:
    """(begin, length) of one of the three parts of a side; sides of one or two stay whole."""
    outer = 2 * ((side - 1) // 6) + 1
    length = np.where(part == 1, side - 2 * outer, outer)
    begin = np.where(part == 2, side - outer, part * outer)
    return begin, np.where(side > 2, length, side)


def _walk(small: _Blocks) -> Ints:
    """The patches of blocks of at most 2x2, one after the other; a block of 2x2 holds the one diagonal step."""
    count = small.height * small.width
    index = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    right, down = np.divmod(index, np.repeat(small.height, count))
    start = np.repeat(small.start, count)
    patch_N: Ints = start + down * np.repeat(small.down, count) + right * np.repeat(small.right, count)
    return patch_N


class Peano(Curve):
    """`peano` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return peano(rows, columns)
