"""The named curves: exactly the paths that their names promise, on every rectangle up to 24×24."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from reorder_core import ComponentRef, Context, Grid
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_ordering
from reorder_core.permutation import steps

SPIRALS = [
    {"inward": inward, "clockwise": clockwise, "corner": corner}
    for inward in (True, False)
    for clockwise in (True, False)
    for corner in ("top_left", "top_right", "bottom_right", "bottom_left")
]
CURVES: list[tuple[str, dict[str, Any]]] = [
    ("row_major", {}),
    ("column_major", {}),
    ("snake", {}),
    ("snake", {"axis": "columns"}),
    ("diagonal", {}),
    ("zigzag", {}),
    *(("spiral", settings) for settings in SPIRALS),
    ("hilbert", {}),
    ("morton", {}),
    ("peano", {}),
    ("random", {"seed": 3}),
    ("reverse", {"of": "hilbert"}),
    ("transpose", {"of": {"name": "snake", "axis": "columns"}}),
    ("flip", {"of": "morton", "axis": "vertical"}),
    ("rotate", {"of": "zigzag", "quarter_turns": 3}),
]
RECTANGLES = [Grid(rows, columns) for rows in range(1, 25) for columns in range(1, 25)]


def build(name: str, **settings: Any) -> Any:
    catalogue = Catalogue.load()
    context = Context(Grid(1, 1), resolve=lambda ref: catalogue.build(ref, context))
    return catalogue.build(ComponentRef("ordering", name, settings), context)


def places(name: str, grid: Grid, **settings: Any) -> list[tuple[int, int]]:
    return [grid.place(int(patch))[:2] for patch in build(name, **settings).permutation(grid)]


@pytest.mark.parametrize(("name", "settings"), CURVES, ids=str)
def test_contract(name, settings):
    check_ordering(name, settings)


@pytest.mark.parametrize(("name", "settings"), CURVES, ids=str)
def test_every_rectangle_up_to_24_is_read_as_the_name_promises(name, settings):
    ordering = build(name, **settings)
    for grid in RECTANGLES:
        perm_N = ordering.permutation(grid)
        assert perm_N.dtype == np.int64
        assert (np.bincount(perm_N, minlength=grid.size) == 1).all(), grid
        size = np.abs(steps(perm_N, grid))
        side = size.sum(1) == 1
        short = size.max(1, initial=0) == 1
        long, low = max(grid.rows, grid.columns), min(grid.rows, grid.columns)
        if name in ("snake", "spiral", "transpose"):
            assert side.all(), grid
        if name in ("hilbert", "reverse"):
            assert short.all(), grid
            assert (~side).sum() <= (long % 2 == 1 and low % 2 == 0), grid
        if name in ("zigzag", "rotate"):
            assert short.all(), grid
        if name == "peano":
            assert short.all(), grid
            assert (~side).sum() == (grid.rows % 2 == 0 and grid.columns % 2 == 0), grid
            assert (perm_N[0], perm_N[-1]) == (0, grid.size - 1), grid
        if name in ("diagonal", "zigzag"):
            row_N, column_N = np.divmod(perm_N, grid.columns)
            assert np.isin(np.diff(row_N + column_N), (0, 1)).all(), grid
        if name == "morton":
            row_N, column_N = np.divmod(perm_N, grid.columns)
            bits = range(5)
            number_N = sum(((column_N >> i & 1) << 2 * i) + ((row_N >> i & 1) << 2 * i + 1) for i in bits)
            assert (np.diff(number_N) > 0).all(), grid


def test_rows_columns_and_snakes_by_their_definitions():
    for grid in RECTANGLES:
        rows, columns = range(grid.rows), range(grid.columns)
        assert places("row_major", grid) == [(row, column) for row in rows for column in columns]
        assert places("column_major", grid) == [(row, column) for column in columns for row in rows]
        lines = [[(row, column) for column in columns][:: 1 - 2 * (row % 2)] for row in rows]
        assert places("snake", grid) == list(itertools.chain(*lines))
        lines = [[(row, column) for row in rows][:: 1 - 2 * (column % 2)] for column in columns]
        assert places("snake", grid, axis="columns") == list(itertools.chain(*lines))


@pytest.mark.parametrize("name", ["row_major", "column_major"])
def test_lines_jump_once_a_line(name):
    for grid in RECTANGLES:
        lines, length = (grid.rows, grid.columns) if name == "row_major" else (grid.columns, grid.rows)
        size = np.abs(steps(build(name).permutation(grid), grid))
        assert (size.sum(1) != 1).sum() == (lines - 1 if length > 1 else 0), grid
        assert (size.max(1, initial=0) > 1).sum() == (lines - 1 if length > 2 else 0), grid


def test_diagonals_one_way_and_to_and_fro():
    assert build("diagonal").permutation(Grid(3, 4)).tolist() == [0, 1, 4, 2, 5, 8, 3, 6, 9, 7, 10, 11]
    assert build("zigzag").permutation(Grid(3, 4)).tolist() == [0, 1, 4, 8, 5, 2, 3, 6, 9, 10, 7, 11]


def test_zigzag_is_the_scan_of_jpeg():
    """ITU-T T.81, figure 5: the slot of each place of a block of 8×8."""
    slots = (
        "0 1 5 6 14 15 27 28 2 4 7 13 16 26 29 42 3 8 12 17 25 30 41 43 9 11 18 24 31 40 44 53 "
        "10 19 23 32 39 45 52 54 20 22 33 38 46 51 55 60 21 34 37 47 50 56 59 61 35 36 48 49 57 58 62 63"
    )
    assert np.argsort(build("zigzag").permutation(Grid(8, 8))).tolist() == [int(slot) for slot in slots.split()]


@pytest.mark.parametrize("settings", SPIRALS, ids=str)
def test_a_spiral_begins_at_its_corner_and_winds_its_way(settings):
    grid = Grid(5, 7)
    path = places("spiral", grid, **settings)
    if not settings["inward"]:
        path = path[::-1]
    corners = {"top_left": (0, 0), "top_right": (0, 6), "bottom_right": (4, 6), "bottom_left": (4, 0)}
    assert path[0] == corners[settings["corner"]]
    # Around the middle, rows counted downward: the sum of the turns is positive clockwise.
    turns = [
        (c - b) * (r2 - r1) - (r1 - r) * (c2 - c1)
        for (r, b), (r1, c), (r2, c2) in zip(path, path[1:], path[2:], strict=False)
        for c1 in (c,)
    ]
    assert all(turn >= 0 for turn in turns) if settings["clockwise"] else all(turn <= 0 for turn in turns)
    rings = [min(row, column, 4 - row, 6 - column) for row, column in path]
    assert rings == sorted(rings), "never back to an outer ring"


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_hilbert_on_powers_of_two_is_hilberts_curve(power):
    """The square falls into four quarters read one after the other, and so does each quarter."""
    side = 2**power
    path = np.array(places("hilbert", Grid(side, side)))
    for part in range(power + 1):
        cell = side >> part
        blocks = (path // cell).reshape(-1, cell * cell, 2)
        assert (blocks == blocks[:, :1]).all()
    assert tuple(path[0]) == (0, 0)
    assert tuple(path[-1]) in ((0, side - 1), (side - 1, 0))


@pytest.mark.parametrize("power", [0, 1, 2, 3, 4])
def test_peano_on_powers_of_three_is_peanos_curve(power):
    """Peano 1890, by digits of base three: each is mirrored as the digits before it of the other coordinate say."""
    side = 3**power
    wanted = []
    for number in range(side * side):
        digits = [number // 3**k % 3 for k in reversed(range(2 * power))]
        row = column = seen_row = seen_column = 0
        for big, small in zip(digits[::2], digits[1::2], strict=True):
            column = 3 * column + (2 - big if seen_row % 2 else big)
            seen_column += big
            row = 3 * row + (2 - small if seen_column % 2 else small)
            seen_row += small
        wanted.append((row, column))
    assert places("peano", Grid(side, side)) == wanted
    assert (np.abs(steps(build("peano").permutation(Grid(side, side)), Grid(side, side))).sum(1) == 1).all()


def test_random_is_its_seed():
    grid = Grid(14, 14)
    orders = [tuple(build("random", seed=seed).permutation(grid)) for seed in range(50)]
    assert len(set(orders)) == 50
    assert orders[7] == tuple(build("random", seed=7).permutation(grid))
    assert build("random").permutation(Grid(2, 5)).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9], "on every machine"


def test_random_is_fair():
    """All six orders of three patches come about equally often over seeds (chi-square, 5 degrees of freedom)."""
    count = dict.fromkeys(itertools.permutations(range(3)), 0)
    for seed in range(3000):
        count[tuple(build("random", seed=seed).permutation(Grid(1, 3)).tolist())] += 1
    assert sum((seen - 500) ** 2 / 500 for seen in count.values()) < 20.5


def test_frames_are_read_one_after_the_other():
    for name, settings in CURVES:
        if name in ("random", "reverse"):
            continue
        one, three = (build(name, **settings).permutation(Grid(4, 5, frames)) for frames in (1, 3))
        assert (three == np.concatenate([one, one + 20, one + 40])).all(), name


def test_not_square_grids_are_first_class():
    """The reference code assumes squares; here rows and columns are never mistaken for one another."""
    for name, settings in CURVES:
        for grid in (Grid(1, 9), Grid(9, 1), Grid(2, 7), Grid(7, 2), Grid(14, 8)):
            perm_N = build(name, **settings).permutation(grid)
            assert sorted(perm_N) == list(range(grid.size)), (name, grid)


def test_hilbert_on_14x14_and_peano_on_9x9_never_jump():
    """The reference code crops a 16×16 Hilbert curve (five jumps on 14×14); its Peano curve jumps 26 times on 9×9."""
    for name, side in (("hilbert", 14), ("peano", 9)):
        grid = Grid(side, side)
        assert (np.abs(steps(build(name).permutation(grid), grid)).sum(1) == 1).all()


def test_snake_is_no_diagonal():
    """What the reference code calls snake is the zigzag here; the snake turns at the end of each row."""
    grid = Grid(14, 14)
    snake, zigzag = build("snake").permutation(grid), build("zigzag").permutation(grid)
    assert snake[:28].tolist() == [*range(14), *range(27, 13, -1)]
    assert (snake != zigzag).any()
    assert zigzag[:6].tolist() == [0, 1, 14, 28, 15, 2]
