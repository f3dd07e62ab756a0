"""Images cut into patches: by definition, back again, and what cannot be cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reorder_core import Grid, UsageError
from reorder_core.patches import cut, pasted

sides = st.integers(1, 3)


@given(st.integers(0, 2), sides, sides, sides, sides)
def test_a_patch_holds_its_channels_rows_and_columns_and_goes_back(images, channels, rows, columns, patch):
    grid = Grid(rows, columns)
    shape = (images, channels, rows * patch, columns * patch)
    images_BCHW = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    patches_BNP = cut(images_BCHW, grid, patch)
    assert patches_BNP.shape == (images, grid.size, channels * patch**2)
    assert patches_BNP.dtype == np.float32
    assert patches_BNP.flags.c_contiguous
    for number, (_, row, column) in enumerate(np.ndindex(1, rows, columns)):
        window = images_BCHW[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        np.testing.assert_array_equal(patches_BNP[:, number], window.reshape(images, patches_BNP.shape[2]))
    np.testing.assert_array_equal(pasted(patches_BNP, grid, patch), images_BCHW)
    np.testing.assert_array_equal(cut(images_BCHW, grid), patches_BNP)


def test_the_grid_alone_may_say_how_large_a_patch_is():
    assert cut(np.zeros((2, 3, 4, 9)), Grid(2, 3)).shape == (2, 6, 3 * 2 * 3)


@pytest.mark.parametrize(
    ("shape", "grid", "patch", "said"),
    [
        ((1, 1, 8, 8), Grid(2, 2), 3, "8x8 pixels cannot be cut into 2x2 patches of 3 pixels"),
        ((1, 1, 8, 8), Grid(3, 2), None, "8x8 pixels cannot be cut into 3x2 patches:"),
        ((1, 1, 2, 2), Grid(3, 3), None, "cannot be cut"),
        ((1, 8, 8), Grid(2, 2), 4, "not \\[1, 8, 8\\]"),
        ((1, 1, 8, 8), Grid(2, 2, 2), 4, "on a grid of 2x2x2"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, grid, patch, said):
    with pytest.raises(UsageError, match=said):
        cut(np.zeros(shape), grid, patch)
