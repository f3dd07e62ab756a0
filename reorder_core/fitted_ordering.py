"""What orderings that are read off training images share: the images checked, and an order that knows its grid.

n images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core.errors import UnsupportedGrid, UsageError
from reorder_core.grid import Grid


class FittedOrdering(ABC):
    """An ordering that `fit` reads off training images, for one grid of single images. A subclass says how.

    name: what errors call it. images: how many of the images that a run shows it are looked at.
    """

    name: str
    images: int

    def __init__(self) -> None:
        self._fitted: tuple[Grid, NDArray[np.int64] | None] | None = None

    @abstractmethod
    def order_of(self, images_nCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.int64]:
        """The order that these images give, int64 [N]; they are finite, and at least one."""

    def fit(self, images: NDArray[Any], grid: Grid, generator: Any = None) -> None:
        """Read the order off `images` [n, C, H, W], as a run shows them; nothing is drawn from the generator.

        On a grid of several frames there is nothing to learn: `permutation` refuses it. Raises `UsageError` for images
        that are empty or not finite, and whatever `order_of` raises.
        """
        if grid.frames > 1:
            self._fitted = grid, None
            return
        pixels_nCHW = np.ascontiguousarray(images[: self.images], dtype=np.float32)
        if pixels_nCHW.ndim != 4 or 0 in pixels_nCHW.shape:
            raise UsageError(f"images to learn an order from must be [n, C, H, W], not {list(pixels_nCHW.shape)}")
        if not np.isfinite(pixels_nCHW).all():
            raise UsageError("an image to learn an order from holds a pixel that is no finite number: mend the data")
        self._fitted = grid, self.order_of(pixels_nCHW, grid)

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The fitted order, int64 [N]. Raises `UnsupportedGrid` for several frames, or for another grid than fitted."""
        if grid.frames > 1:
            raise UnsupportedGrid(f"'{self.name}' is of the patches of single images, not of {grid.frames} frames")
        if self._fitted is None:
            raise UsageError(f"'{self.name}' reads its order off images: show it some with fit() first")
        known, order_N = self._fitted
        if known != grid or order_N is None:
            raise UnsupportedGrid(f"'{self.name}' was fitted on a grid of {known}, and has no order for {grid}")
        return order_N.copy()
