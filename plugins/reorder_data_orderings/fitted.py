"""What the orderings of this room share: images cut into patches, and an order that knows the grid it was fitted on.

n images, C channels, H W pixels, N patches, P numbers in a patch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid, UnsupportedGrid, UsageError


def cut(images_nCHW: NDArray[Any], grid: Grid) -> NDArray[np.float32]:
    """The patches of every image, row by row, float32 [n, N, P].

    Raises `UsageError` for images that are empty, not finite, or that the grid does not divide.
    """
    if images_nCHW.ndim != 4 or 0 in images_nCHW.shape:
        raise UsageError(f"images to learn an order from must be [n, C, H, W], not {list(images_nCHW.shape)}")
    n, channels, height, width = images_nCHW.shape
    rows, columns = grid.rows, grid.columns
    if height % rows or width % columns:
        raise UsageError(f"images of {height}x{width} pixels cannot be cut into {grid} patches: change the patch size")
    if not np.isfinite(images_nCHW).all():
        raise UsageError("an image to learn an order from holds a pixel that is no finite number: mend the data")
    shape = (n, channels, rows, height // rows, columns, width // columns)
    split = images_nCHW.astype(np.float32).reshape(shape).transpose(0, 2, 4, 1, 3, 5)
    patches_nNP: NDArray[np.float32] = split.reshape(n, grid.size, -1)
    return patches_nNP


class FittedOrdering(ABC):
    """An ordering that `fit` reads off training images, for one grid of single images."""

    name: str
    images: int

    def __init__(self) -> None:
        self._fitted: tuple[Grid, NDArray[np.int64] | None] | None = None

    @abstractmethod
    def order_of(self, patches_nNP: NDArray[np.float32]) -> NDArray[np.int64]:
        """The order of these patches, int64 [N]."""

    def fit(self, images: NDArray[Any], grid: Grid, generator: Any = None) -> None:
        """Read the order off `images` [n, C, H, W], normalised or not; nothing is drawn from the generator.

        On a grid of several frames there is nothing to learn: `permutation` refuses it.
        """
        if grid.frames > 1:
            self._fitted = grid, None
            return
        self._fitted = grid, self.order_of(cut(np.asarray(images)[: self.images], grid))

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The fitted order, int64 [N]. Raises `UnsupportedGrid` for several frames, or for another grid than fitted."""
        if grid.frames > 1:
            raise UnsupportedGrid(f"'{self.name}' compares the patches of single images, not of {grid.frames} frames")
        if self._fitted is None:
            raise UsageError(f"'{self.name}' reads its order off images: show it some with fit() first")
        known, order_N = self._fitted
        if known != grid or order_N is None:
            raise UnsupportedGrid(f"'{self.name}' was fitted on a grid of {known}, and has no order for {grid}")
        return order_N.copy()
