"""The path of an order, drawn with the characters of a terminal.

N patches, R × C places, one row a step (row, column) in arrays named `step`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reorder_core.drawing.canvas import ASCII, BOX, Canvas, Ink
from reorder_core.grid import Grid
from reorder_core.permutation import invert, steps, validate

_ROWS = 64
"""lines that a drawing of one frame may take; a taller grid is drawn in shades"""


def draw_terminal(
    perm_N: NDArray[np.int64], grid: Grid, width: int | None = None, ascii: bool = False, colour: bool = False
) -> str:
    """The order as text: a path where most steps are short, else slot numbers, shades for what does not fit.

    width: characters a line, the terminal's where left out. ascii: plain characters only. colour: by slot (ANSI).
    The last line counts the steps: to a side neighbour, diagonal, and jumps, which go farther.
    Raises `ReorderError` where it is no order of this grid.
    """
    perm_N = validate(perm_N, grid.size)
    width = max(width or shutil.get_terminal_size().columns, 20)
    ink = ASCII if ascii else BOX
    parts = [
        _titled(title, _draw(order_n, place, grid, width, ink, colour))
        for title, order_n, place in _frames(perm_N, grid)
    ]
    return "\n\n".join([*parts, _count(perm_N, grid, ink)])


def _titled(title: str, drawing: str) -> str:
    return f"{title}\n{drawing}" if title else drawing


def _frames(perm_N: NDArray[np.int64], grid: Grid) -> Iterator[tuple[str, NDArray[np.int64] | None, NDArray[np.int64]]]:
    """(title, path within the frame or None where it leaves it and returns, slot of each place [R, C])."""
    n = grid.rows * grid.columns
    slot_FRC = invert(perm_N).reshape(grid.frames, grid.rows, grid.columns)
    frame_FN, path_FN = np.divmod(perm_N.reshape(grid.frames, n), n)
    together = bool((frame_FN == frame_FN[:, :1]).all())
    if grid.frames == 1:
        yield "", perm_N, slot_FRC[0]
    elif together and (path_FN == path_FN[0]).all() and (np.diff(frame_FN[:, 0]) == 1).all():
        yield f"each of {grid.frames} frames, one after the other:", path_FN[0], slot_FRC[0]
    else:
        for frame, slot_RC in enumerate(slot_FRC):
            turn = np.flatnonzero(frame_FN[:, 0] == frame)
            path = path_FN[turn[0]] if together else None
            title = f"frame {frame}, slots {slot_RC.min()} to {slot_RC.max()}:"
            yield title, path, slot_RC - slot_RC.min() if together else slot_RC


def _draw(
    path_n: NDArray[np.int64] | None, slot_RC: NDArray[np.int64], grid: Grid, width: int, ink: Ink, colour: bool
) -> str:
    rows, columns = slot_RC.shape
    if path_n is not None:
        if min(rows, columns) == 1 and (rows > _ROWS or 2 * columns > width):
            return _runs(path_n, width, ascii=ink is ASCII)
        size = np.abs(steps(path_n, Grid(rows, columns)))[:, :2]
        side, short = (size.sum(1) == 1).mean() if len(size) else 1.0, (size.max(1) == 1).mean() if len(size) else 1.0
        # Wide enough for square cells where it fits: a character is about twice as high as wide.
        across = 2 if 2 * columns - 1 <= width else 1
        if side >= 0.75 and columns <= width and rows <= _ROWS:
            return _path(path_n, rows, columns, (1, across), ink).text(colour)
        if short >= 0.7 and 4 * columns - 3 <= width and 2 * rows - 1 <= _ROWS:
            return _path(path_n, rows, columns, (2, 4), ink).text(colour)
    if columns * (len(str(slot_RC.max())) + 1) <= width and rows <= _ROWS:
        return _numbers(slot_RC, grid.size).text(colour)
    return _shades(slot_RC, grid.size, width, ink).text(colour)


def _path(path_n: NDArray[np.int64], rows: int, columns: int, pitch: tuple[int, int], ink: Ink) -> Canvas:
    """Lines to side neighbours, and diagonals where the pitch (characters a place, down and across) leaves room."""
    down, across = pitch
    canvas = Canvas((rows - 1) * down + 1, (columns - 1) * across + 1, len(path_n))
    places = [divmod(int(patch), columns) for patch in path_n]
    moves = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(places)]
    for slot, (row, column) in enumerate(places):
        into = moves[slot - 1] if slot else None
        out = moves[slot] if slot < len(moves) else None
        canvas.put(row * down, column * across, _joint(into, out, ink), slot)
        if out is not None:
            _link(canvas, (row * down, column * across), out, pitch, slot, ink)
    return canvas


def _joint(into: tuple[int, int] | None, out: tuple[int, int] | None, ink: Ink) -> str:
    """The character of a patch between the step that leads into it and the one that leads out."""
    if into is None:
        return ink.first
    if out is None:
        return ink.last
    back = (-into[0], -into[1])
    if out not in ink.tips and back in ink.tips and max(map(abs, out)) > 1:
        return ink.tips[into]
    return ink.joints.get(frozenset(side for side in (back, out) if side in ink.tips), ink.alone)


def _link(
    canvas: Canvas, at: tuple[int, int], move: tuple[int, int], pitch: tuple[int, int], slot: int, ink: Ink
) -> None:
    """What stands between two patches of one step."""
    (row, column), (down, across) = at, pitch
    if move in ((0, 1), (0, -1)):
        canvas.put(row, min(column, column + move[1] * across) + 1, ink.across * (across - 1), slot)
    elif move in ((1, 0), (-1, 0)) and down == 2:
        canvas.put(row + move[0], column, ink.upright, slot)
    elif abs(move[0]) == abs(move[1]) == 1 and down == 2:
        middle = (row + move[0], column + move[1] * across // 2)
        taken = canvas.marks[middle[0]][middle[1]] != " "
        line = ink.falling if move[0] == move[1] else ink.rising
        canvas.put(*middle, ink.crossing if taken else line, slot)


def _numbers(slot_RC: NDArray[np.int64], slots: int) -> Canvas:
    """The slot of each patch at its place."""
    digits = len(str(slot_RC.max()))
    canvas = Canvas(slot_RC.shape[0], slot_RC.shape[1] * (digits + 1) - 1, slots)
    for (row, column), slot in np.ndenumerate(slot_RC):
        canvas.put(row, column * (digits + 1), f"{slot:>{digits}}", int(slot))
    return canvas


def _shades(slot_RC: NDArray[np.int64], slots: int, width: int, ink: Ink) -> Canvas:
    """The mean slot of an area as a shade, early light and late dark; two characters an area."""
    tall, wide = min(slot_RC.shape[0], _ROWS // 2), min(slot_RC.shape[1], width // 2)
    row_edges = np.arange(tall) * slot_RC.shape[0] // tall
    column_edges = np.arange(wide) * slot_RC.shape[1] // wide
    total = np.add.reduceat(np.add.reduceat(slot_RC, row_edges, axis=0), column_edges, axis=1)
    height = np.diff(np.append(row_edges, slot_RC.shape[0]))
    breadth = np.diff(np.append(column_edges, slot_RC.shape[1]))
    mean = total // (height[:, None] * breadth[None, :])
    canvas = Canvas(tall, 2 * wide, slots)
    for (row, column), slot in np.ndenumerate(mean):
        canvas.put(row, 2 * column, ink.shades[int(slot) * len(ink.shades) // slots] * 2, int(slot))
    return canvas


def _runs(path_n: NDArray[np.int64], width: int, ascii: bool) -> str:
    """A line of patches as its runs, in reading order: `0…63 127…64`."""
    move = np.diff(path_n)
    runs, begin = [], 0
    while begin < len(path_n):
        end = begin
        while end < len(move) and abs(move[end]) == 1 and move[end] == move[begin]:
            end += 1
        first, last = path_n[begin], path_n[end]
        runs.append(str(first) if begin == end else f"{first}{'..' if ascii else '…'}{last}")
        begin = end + 1
    lines, dots = [""], "..." if ascii else "…"
    for run in runs:
        if len(lines[-1]) + len(run) + 1 > width:
            if len(lines) == 16:
                return "\n".join([*lines, f"{dots} and so on, {len(runs)} runs in all"])
            lines.append("")
        lines[-1] = f"{lines[-1]} {run}".strip()
    return "\n".join(lines)


def _count(perm_N: NDArray[np.int64], grid: Grid, ink: Ink) -> str:
    size = np.abs(steps(perm_N, grid))
    side, short = int((size.sum(1) == 1).sum()), int((size.max(1, initial=0) == 1).sum())
    jumps = len(size) - short
    ends = f"{ink.first} first, {ink.last} last"
    return (
        f"{grid}, {grid.size} {'patch' if grid.size == 1 else 'patches'} ({ends}); of {len(size)} steps "
        f"{side} to a side neighbour, {short - side} diagonal, {jumps} {'jump' if jumps == 1 else 'jumps'}"
    )
