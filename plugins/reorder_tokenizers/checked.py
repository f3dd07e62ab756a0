"""What a tokenizer asks of the images that it is given.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, UsageError


def checked(images_BCHW: NDArray[Any], context: Context) -> NDArray[np.float32]:
    """The images as float32. Raises `UsageError` where they are not what the context describes, or not in [0, 1]."""
    grid, patch = context.grid, context.patch
    if grid.frames > 1:
        raise UsageError(f"a tokenizer reads single images, and the grid {grid} has {grid.frames} frames: give it one")
    found = np.asarray(images_BCHW)
    wanted = (context.channels, grid.rows * patch, grid.columns * patch)
    if found.ndim != 4 or found.shape[1:] != wanted:
        raise UsageError(
            f"images of shape {list(found.shape)} do not fit this tokenizer, which reads [B, {wanted[0]}, {wanted[1]}, "
            f"{wanted[2]}] (a grid of {grid}, patches of {patch} pixels): choose one made for them"
        )
    if found.size and not (found.min() >= 0 and found.max() <= 1):  # also where a pixel is no number
        raise UsageError(
            f"a tokenizer reads pixels from 0 to 1, and these go from {found.min():g} to {found.max():g}: "
            f"bring them to that range"
        )
    return np.ascontiguousarray(found, dtype=np.float32)
