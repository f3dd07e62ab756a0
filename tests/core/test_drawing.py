"""Drawings of orders, in the terminal and as pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reorder_core import ComponentRef, Context, Grid, ReorderError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import grids, permutations
from reorder_core.drawing import draw_many_png, draw_png, draw_terminal


def order(name: str, grid: Grid) -> np.ndarray:
    return Catalogue.load().build(ComponentRef("ordering", name), Context(grid)).permutation(grid)


def drawn(name: str, size: str, **options: object) -> list[str]:
    grid = Grid.parse(size)
    return draw_terminal(order(name, grid), grid, **{"width": 80, **options}).splitlines()


def test_a_path_of_side_steps_is_a_line():
    assert drawn("snake", "3x4")[:3] == ["●─────╮", "╭─────╯", "╰─────■"]
    assert drawn("spiral", "3x4")[:3] == ["●─────╮", "╭───■ │", "╰─────╯"]
    assert (
        drawn("hilbert", "4x4")[:4] == ["● ╭─╮ ■", "╰─╯ ╰─╯", "╭─╮ ╭─╮", "│ ╰─╯ │"]
        or drawn("hilbert", "4x4")[0][0] == "●"
    )


def test_jumps_leave_by_an_arrow_and_are_counted():
    lines = drawn("row_major", "4x8")
    assert lines[:4] == ["●─────────────▸", "╶─────────────▸", "╶─────────────▸", "╶─────────────■"]
    assert lines[-1] == "4x8, 32 patches (● first, ■ last); of 31 steps 28 to a side neighbour, 0 diagonal, 3 jumps"


def test_diagonal_steps_are_drawn_where_they_are_many():
    assert drawn("zigzag", "3x3")[:5] == ["●───╴   ╷", "  ╱   ╱ │", "╷   ·   ╵", "│ ╱   ╱", "╵   ╶───■"]


def test_an_order_that_only_jumps_is_drawn_as_slot_numbers():
    grid = Grid(3, 4)
    lines = draw_terminal(order("random", grid), grid, width=80).splitlines()[:3]
    slots = np.array([[int(number) for number in line.split()] for line in lines]).reshape(-1)
    assert (np.argsort(slots) == order("random", grid)).all()


def test_plain_characters():
    lines = (
        drawn("hilbert", "8x8", ascii=True) + drawn("morton", "8x8", ascii=True) + drawn("random", "90x90", ascii=True)
    )
    assert "\n".join(lines).isascii()
    assert drawn("snake", "3x4", ascii=True)[:3] == ["S-----+", "+-----+", "+-----E"]


def test_a_line_of_patches_is_drawn_as_its_runs():
    grid = Grid(1, 200)
    assert draw_terminal(np.arange(200)[::-1], grid, width=80).splitlines()[0] == "199…0"
    assert draw_terminal(np.roll(np.arange(200), 50), grid, width=80).splitlines()[0] == "150…199 0…149"
    assert draw_terminal(np.random.default_rng(0).permutation(5000), Grid(5000, 1), width=80).count("\n") < 20


def test_frames():
    assert drawn("snake", "2x3x4")[0] == "each of 2 frames, one after the other:"
    assert sum(line.startswith("frame ") for line in drawn("random", "2x3x4")) == 2
    reverse = draw_terminal(np.arange(24)[::-1], Grid(3, 4, 2), width=80)
    assert "frame 0, slots 12 to 23:" in reverse


@pytest.mark.parametrize("name", ["hilbert", "row_major", "random", "diagonal"])
def test_large_grids_stay_readable(name):
    for size in ("64x64", "200x300", "300x7", "7x300"):
        lines = drawn(name, size)
        assert max(map(len, lines[:-1])) <= 80
        assert len(lines) <= 68


def test_colour_changes_no_character():
    grid = Grid(6, 7)
    for name in ("hilbert", "random", "zigzag"):
        coloured = draw_terminal(order(name, grid), grid, width=80, colour=True)
        assert "\x1b[38;5;" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == draw_terminal(order(name, grid), grid, width=80)


@settings(max_examples=150, deadline=None)
@given(
    grids(9, max_frames=3).flatmap(lambda grid: st.tuples(st.just(grid), permutations(grid.size))),
    st.integers(20, 90),
    st.booleans(),
)
def test_any_order_of_any_grid_is_drawn_within_the_width(case, width, plain):
    grid, perm = case
    text = draw_terminal(perm, grid, width=width, ascii=plain)
    *drawing, count = text.splitlines()
    assert all(len(line) <= max(width, 40) for line in drawing)
    side, diagonal, jumps = map(int, re.search(r"steps (\d+) to .* (\d+) diagonal, (\d+) jump", count).groups())
    assert side + diagonal + jumps == grid.size - 1


def test_an_order_of_another_grid_is_refused(tmp_path):
    for draw in (lambda: draw_terminal(np.arange(5), Grid(2, 3)), lambda: draw_png(np.arange(5), Grid(2, 3), tmp_path)):
        with pytest.raises(ReorderError, match="5 patches where 6 are needed"):
            draw()


@pytest.mark.parametrize("size", ["1x1", "1x7", "7x1", "14x14", "2x3x4", "70x70"])
@pytest.mark.parametrize("name", ["hilbert", "random"])
def test_a_picture_of_any_grid(tmp_path, size, name):
    grid = Grid.parse(size)
    draw_png(order(name, grid), grid, tmp_path / "order.png", title=name)
    with Image.open(tmp_path / "order.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 8


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1), (32, 32, 3)])
def test_a_picture_over_the_image(tmp_path, shape):
    grid = Grid(8, 8)
    image = np.random.default_rng(0).random(shape)
    draw_png(order("spiral", grid), grid, tmp_path / "with.png", image=image)
    draw_png(order("spiral", grid), grid, tmp_path / "without.png")
    with Image.open(tmp_path / "with.png") as over, Image.open(tmp_path / "without.png") as alone:
        assert np.abs(np.asarray(over.convert("L"), float).mean() - np.asarray(alone.convert("L"), float).mean()) > 5


def test_a_picture_cannot_lie_over_something_else(tmp_path):
    with pytest.raises(ReorderError, match="cannot be drawn"):
        draw_png(np.arange(4), Grid(2, 2), tmp_path / "x.png", image=np.zeros((3, 4, 4)))


def test_several_orders_in_one_small_picture(tmp_path):
    grid = Grid(14, 14)
    names = ("row_major", "column_major", "hilbert", "spiral", "diagonal", "snake")
    draw_many_png([(name, order(name, grid), grid) for name in names], tmp_path / "orders.png")
    draw_many_png([("one", order("snake", grid), grid)], tmp_path / "one.png")
    draw_many_png([(name, order(name, grid), grid) for name in names[:4]], tmp_path / "four.png")
    assert (tmp_path / "orders.png").stat().st_size < 150_000
    with pytest.raises(ReorderError, match="no order to draw"):
        draw_many_png([], tmp_path / "none.png")


def test_a_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(ReorderError, match="cannot write the picture"):
        draw_png(np.arange(4), Grid(2, 2), tmp_path / "nowhere" / "x.png")
