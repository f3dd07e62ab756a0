"""Transformations of orderings, and the laws between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reorder_core import ComponentRef, Context, Grid, ReorderError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import grids, permutations
from reorder_core.permutation import steps

NAMES = st.sampled_from(
    ["row_major", "column_major", "snake", "diagonal", "zigzag", "spiral", "hilbert", "morton", "peano", "random"]
)
CASES = st.tuples(NAMES, grids(30, max_frames=3))
WIDE = str.maketrans({"0": "00", "1": "01"})
"""spreads binary digits, a zero before each"""
Written = str | dict[str, Any]


class Given:
    """An ordering that hands out what it was given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def permutation(self, grid: Grid) -> Any:
        return self.answer


def order(written: Written, grid: Grid, inner: Any = None) -> np.ndarray:
    catalogue = Catalogue.load()
    context = Context(grid, resolve=lambda ref: inner if ref.name == "given" else catalogue.build(ref, context))
    mapping = {"name": written} if isinstance(written, str) else written
    rest = {key: value for key, value in mapping.items() if key != "name"}
    return catalogue.build(ComponentRef("ordering", mapping["name"], rest), context).permutation(grid)


def reverse(of: Written) -> Written:
    return {"name": "reverse", "of": of}


def transpose(of: Written) -> Written:
    return {"name": "transpose", "of": of}


def flip(of: Written, axis: str = "horizontal") -> Written:
    return {"name": "flip", "of": of, "axis": axis}


def rotate(of: Written, quarter_turns: int = 1) -> Written:
    return {"name": "rotate", "of": of, "quarter_turns": quarter_turns}


def same(one: Written, other: Written, grid: Grid) -> bool:
    return bool((order(one, grid) == order(other, grid)).all())


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_laws_of_any_ordering(case):
    name, grid = case
    assert (order(reverse(name), grid) == order(name, grid)[::-1]).all()
    assert same(reverse(reverse(name)), name, grid)
    assert same(transpose(transpose(name)), name, grid)
    for axis in ("horizontal", "vertical"):
        assert same(flip(flip(name, axis), axis), name, grid)
        assert same(reverse(flip(name, axis)), flip(reverse(name), axis), grid)
    assert same(flip(flip(name, "vertical")), flip(flip(name), "vertical"), grid)
    assert same(flip(flip(name, "vertical")), rotate(name, 2), grid)
    for one in (1, 2, 3):
        for two in (1, 2, 3):
            turns = (one + two) % 4
            assert same(rotate(rotate(name, one), two), rotate(name, turns) if turns else name, grid)
    assert same(rotate(name), flip(transpose(name)), grid), "mirrored at the diagonal, then left-right"
    assert same(transpose(name), rotate(flip(name, "vertical")), grid)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_a_transformation_keeps_the_lengths_of_all_steps(case):
    name, grid = case
    if grid.rows != grid.columns:
        grid = Grid(grid.rows, grid.rows, grid.frames)
    length = np.sort(np.abs(steps(order(name, grid), grid)).sum(1))
    for changed in (reverse(name), transpose(name), flip(name), rotate(name)):
        assert (np.sort(np.abs(steps(order(changed, grid), grid)).sum(1)) == length).all()


@settings(max_examples=80, deadline=None)
@given(grids(40, max_frames=3))
def test_laws_between_the_named_curves(grid):
    assert same(transpose("row_major"), "column_major", grid)
    assert same(transpose("column_major"), "row_major", grid)
    assert same(transpose("snake"), {"name": "snake", "axis": "columns"}, grid)
    assert same(rotate("row_major", 2), reverse("row_major"), Grid(grid.rows, grid.columns))
    for corner in ("top_left", "top_right", "bottom_right", "bottom_left"):
        spiral = {"name": "spiral", "corner": corner}
        assert same(reverse(spiral), {**spiral, "inward": False}, Grid(grid.rows, grid.columns))
    corners = ("top_left", "top_right", "bottom_right", "bottom_left")
    for turns in (1, 2, 3):
        assert same(rotate("spiral", turns), {"name": "spiral", "corner": corners[turns]}, grid)
    assert same(transpose("spiral"), {"name": "spiral", "clockwise": False}, grid)
    assert same(flip("spiral"), {"name": "spiral", "clockwise": False, "corner": "top_right"}, grid)
    if grid.rows != grid.columns:
        assert same(transpose("hilbert"), "hilbert", grid), "it follows the longer side"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_diagonals_and_z_order_of_the_transposed_grid_run_the_other_way(rows, columns):
    grid = Grid(rows, columns)
    there, back = order("diagonal", grid), order(transpose("diagonal"), grid)
    number = lambda perm: perm // columns + perm % columns  # noqa: E731
    assert (number(there) == number(back)).all()
    morton = order(transpose("morton"), grid)
    swapped = [
        int(f"{row:08b}".translate(WIDE), 2) + 2 * int(f"{column:08b}".translate(WIDE), 2)
        for row, column in zip(morton // columns, morton % columns, strict=True)
    ]
    assert swapped == sorted(swapped), "now the row has the low bits"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_step_laws_hold_far_beyond_24(rows, columns):
    grid = Grid(rows, columns)
    odd_by_even = max(rows, columns) % 2 == 1 and min(rows, columns) % 2 == 0
    for name, diagonal in (
        ("snake", 0),
        ("spiral", 0),
        ("hilbert", int(odd_by_even)),
        ("peano", int(rows % 2 == columns % 2 == 0)),
    ):
        perm_N = order(name, grid)
        assert (np.bincount(perm_N, minlength=grid.size) == 1).all()
        size = np.abs(steps(perm_N, grid))
        assert size.max(initial=1) == 1
        assert (size.sum(1) == 2).sum() <= diagonal


def test_turning_is_seen_on_the_grid():
    grid = Grid(2, 3)
    seen = lambda written: np.argsort(order(written, grid)).reshape(2, 3).tolist()  # noqa: E731
    assert seen("row_major") == [[0, 1, 2], [3, 4, 5]]
    assert seen(flip("row_major")) == [[2, 1, 0], [5, 4, 3]]
    assert seen(flip("row_major", "vertical")) == [[3, 4, 5], [0, 1, 2]]
    assert seen(transpose("row_major")) == [[0, 2, 4], [1, 3, 5]]
    assert seen(rotate("row_major")) == [[4, 2, 0], [5, 3, 1]], "the first row of 3×2 stands upright on the right"


@settings(max_examples=30, deadline=None)
@given(grids(6, max_frames=2).flatmap(lambda grid: st.tuples(st.just(grid), permutations(grid.size))))
def test_any_order_even_across_frames_can_be_turned(case):
    grid, perm = case
    given = Given(perm)
    assert (order(flip("given"), grid, given).reshape(-1) == np.array([mirrored(grid, patch) for patch in perm])).all()
    assert (order(reverse("given"), grid, given) == perm[::-1]).all()


def mirrored(grid: Grid, patch: int) -> int:
    row, column, frame = grid.place(int(patch))
    return grid.patch(row, grid.columns - 1 - column, frame)


@pytest.mark.parametrize("make", [reverse, transpose, flip, rotate])
def test_an_inner_ordering_that_is_no_permutation_is_named(make):
    with pytest.raises(ReorderError, match="the order of 'given' repeats patch 0 and leaves out patch 3"):
        order(make("given"), Grid(2, 2), Given([0, 0, 1, 2]))


class Learning(Given):
    """Orders the patches by their brightness."""

    def fit(self, images: np.ndarray, grid: Grid, generator: Any) -> None:
        assert images.shape[-2:] == (2 * grid.rows, 2 * grid.columns)
        shape = (*images.shape[:2], grid.rows, 2, grid.columns, 2)
        self.answer = np.argsort(images.reshape(shape).mean(axis=(0, 1, 3, 5)).reshape(-1), kind="stable")


@pytest.mark.parametrize("written", [reverse("given"), transpose("given"), flip("given"), rotate("given", 3)])
def test_an_ordering_that_learns_still_learns_inside_a_transformation(written):
    """Brightness has no direction, so that whatever is turned there and back gives the same order."""
    grid = Grid(3, 4)
    images = np.random.default_rng(0).random((5, 1, 6, 8))
    alone, inner = Learning(None), Learning(None)
    alone.fit(images, grid, None)
    catalogue = Catalogue.load()
    rest = {key: value for key, value in written.items() if key != "name"}
    built = catalogue.build(ComponentRef("ordering", written["name"], rest), Context(grid, resolve=lambda ref: inner))
    built.fit(images, grid, None)
    wanted = alone.answer[::-1] if written["name"] == "reverse" else alone.answer
    assert (built.permutation(grid) == wanted).all()


def test_an_ordering_that_does_not_learn_offers_no_fit():
    catalogue = Catalogue.load()
    context = Context(Grid(2, 2), resolve=lambda ref: catalogue.build(ref, context))
    for name in ("reverse", "transpose", "flip", "rotate"):
        assert not hasattr(catalogue.build(ComponentRef("ordering", name), context), "fit")
