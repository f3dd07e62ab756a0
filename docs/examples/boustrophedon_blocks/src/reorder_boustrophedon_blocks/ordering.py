"""Blocks of patches, read to and fro. N patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reorder_core import Context, Grid, UnsupportedGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reorder_boustrophedon_blocks.settings import BlocksSettings


def to_and_fro(patches: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of a rectangle one after the other, every second one backwards."""
    turned = patches.copy()
    turned[1::2] = turned[1::2, ::-1]
    return turned.ravel()


class BoustrophedonBlocks:
    """`perm[slot] = patch`: block after block."""

    def __init__(self, settings: BlocksSettings, context: Context) -> None:
        self.side = settings.side

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The order, int64 [N]. Raises `UnsupportedGrid` for several frames."""
        if grid.frames > 1:
            raise UnsupportedGrid("boustrophedon_blocks reads a single frame: use a grid of rows x columns")
        patches_RC = np.arange(grid.size, dtype=np.int64).reshape(grid.rows, grid.columns)
        order = []
        for number, top in enumerate(range(0, grid.rows, self.side)):
            lefts = list(range(0, grid.columns, self.side))
            for left in lefts[::-1] if number % 2 else lefts:
                order.append(to_and_fro(patches_RC[top : top + self.side, left : left + self.side]))
        return np.concatenate(order)
