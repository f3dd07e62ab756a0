"""Images cut into patches, and put together again.

B images, C channels, H W pixels, N patches, P = C · height · width values of a patch.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from reorder_core.errors import UsageError
from reorder_core.grid import Grid

Value = TypeVar("Value", bound=np.generic)


def cut(images_BCHW: NDArray[Value], grid: Grid, patch: int | None = None) -> NDArray[Value]:
    """The patches of each image, contiguous [B, N, P], in the numbering of the grid: row by row.

    The values of a patch come channel by channel, each channel's rows from top to bottom, each row from left to right.
    patch: side of a patch in pixels, where the images must be of that size; left out, patches are what the grid
    divides the images into, square or not. Raises `UsageError` for other images, and for a grid of several frames.
    """
    if images_BCHW.ndim != 4 or grid.frames > 1:
        raise UsageError(
            f"single images [B, C, H, W] are cut into patches, not {list(images_BCHW.shape)} on a grid of {grid}"
        )
    B, C, H, W = images_BCHW.shape
    rows, columns = grid.rows, grid.columns
    height, width = (H // rows, W // columns) if patch is None else (patch, patch)
    if (rows * height, columns * width) != (H, W) or 0 in (height, width):
        sides = "" if patch is None else f" of {patch} pixels"
        raise UsageError(f"images of {H}x{W} pixels cannot be cut into {grid} patches{sides}: change the patch size")
    split = images_BCHW.reshape(B, C, rows, height, columns, width).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(split).reshape(B, rows * columns, C * height * width)


def pasted(patches_BNP: NDArray[Any], grid: Grid, patch: int) -> NDArray[Any]:
    """The images [B, C, H, W] that `cut` made these square patches of; C follows from P."""
    B, _, P = patches_BNP.shape
    C = P // patch**2
    split = patches_BNP.reshape(B, grid.rows, grid.columns, C, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(split).reshape(B, C, grid.rows * patch, grid.columns * patch)
