"""Orders carried to another grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reorder_core.carried import carry
from reorder_core.errors import ReorderError
from reorder_core.grid import Grid

grids = st.builds(Grid, st.integers(1, 7), st.integers(1, 7), st.integers(1, 2))


@given(grids, grids, st.randoms(use_true_random=False))
def test_any_order_becomes_an_order_of_any_grid(grid, to, random):
    order_N = random.sample(range(grid.size), grid.size)
    assert sorted(carry(order_N, grid, to)) == list(range(to.size))


@given(grids, st.randoms(use_true_random=False))
def test_on_its_own_grid_an_order_is_itself(grid, random):
    order_N = random.sample(range(grid.size), grid.size)
    assert carry(order_N, grid, grid).tolist() == order_N


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.randoms(use_true_random=False))
def test_there_and_back_again(rows, columns, times, random):
    """Every patch becomes a block of patches that follow each other, in the order of the blocks."""
    grid, fine = Grid(rows, columns), Grid(rows * times, columns * times)
    order_N = random.sample(range(grid.size), grid.size)
    carried_M = carry(order_N, grid, fine)
    row_M, column_M = np.divmod(carried_M, fine.columns)
    block_M = row_M // times * columns + column_M // times
    assert block_M.tolist() == np.repeat(order_N, times**2).tolist()
    assert carry(carried_M, fine, grid).tolist() == order_N


@pytest.mark.parametrize(("grid", "to"), [("8x8", "4x4"), ("14x14", "7x7"), ("6x9", "3x3"), ("9x6", "4x3")])
@pytest.mark.parametrize("by_columns", [False, True])
def test_a_coarser_grid_reads_a_raster_scan_as_a_raster_scan(grid, to, by_columns):
    grid, to = Grid.parse(grid), Grid.parse(to)

    def scan(of):
        numbers = np.arange(of.size).reshape(of.rows, of.columns)
        return (numbers.T if by_columns else numbers).ravel()

    assert carry(scan(grid), grid, to).tolist() == scan(to).tolist()


def test_a_jump_is_no_average():
    """First and last patch stand side by side: a patch between them is read with one of them, not halfway."""
    order_N = [0, 2, 3, 4, 5, 6, 7, 1]
    carried = carry(order_N, Grid(1, 8), Grid(1, 16)).tolist()
    assert carried[:2] == [0, 1]
    assert sorted(carried[-2:]) == [2, 3]


def test_inside_a_patch_the_direction_of_travel_is_kept():
    assert carry([0, 1, 2], Grid(1, 3), Grid(1, 9)).tolist() == list(range(9))
    assert carry([2, 1, 0], Grid(1, 3), Grid(1, 9))[3:6].tolist() == [5, 4, 3]


def test_an_order_that_is_none_is_refused():
    with pytest.raises(ReorderError, match="the order to be carried"):
        carry([0, 0, 1, 2], Grid(2, 2), Grid(4, 4))
