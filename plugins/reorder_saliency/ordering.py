"""The ordering `saliency`: patches by their importance.

n images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import Batch, Context, DataFacts, Grid, UnsupportedGrid, UsageError
from reorder_saliency.settings import SaliencySettings, misfit

_BATCH = 32


class Saliency:
    """Ascending or descending importance over the training images; patches of the same one stand by their number."""

    def __init__(self, settings: SaliencySettings, context: Context) -> None:
        self.settings = settings
        self._fitted: tuple[Grid, NDArray[np.int64] | None] | None = None

    def fit(self, images: NDArray[Any], grid: Grid, generator: Any = None) -> None:
        """Measure the importance of each patch on `images` [n, C, H, W], normalised as the run's model knows them.

        The model of a run reads them in the order that the run ended with, on the CPU: all processes of a training must
        find the same order. Nothing is drawn from the generator. Raises `UsageError` for a run on another grid or
        on other images. On a grid of several frames there is nothing to learn: `permutation` refuses it.
        """
        if grid.frames > 1:
            self._fitted = grid, None
            return
        pixels_nCHW = np.ascontiguousarray(images[: self.settings.images], dtype=np.float32)
        if pixels_nCHW.ndim != 4 or 0 in pixels_nCHW.shape:
            raise UsageError(f"images to learn an order from must be [n, C, H, W], not {list(pixels_nCHW.shape)}")
        salience_N = (
            self._of_data(pixels_nCHW, grid) if self.settings.run is None else self._of_model(pixels_nCHW, grid)
        )
        self._fitted = grid, by_salience(salience_N, self.settings.direction)

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The fitted order, int64 [N]. Raises `UnsupportedGrid` for several frames, or for another grid than fitted."""
        if grid.frames > 1:
            raise UnsupportedGrid(f"'saliency' is of the patches of single images, not of {grid.frames} frames")
        if self._fitted is None:
            raise UsageError("'saliency' reads its order off images: show it some with fit() first")
        known, order_N = self._fitted
        if known != grid or order_N is None:
            raise UnsupportedGrid(f"'saliency' was fitted on a grid of {known}, and has no order for {grid}")
        return order_N.copy()

    def _of_data(self, images_nCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
        from reorder_saliency.measures import variance_N

        height, width = images_nCHW.shape[-2:]
        if height % grid.rows or width % grid.columns:
            raise UsageError(
                f"images of {height}x{width} pixels cannot be cut into {grid} patches: change the patch size"
            )
        return variance_N(images_nCHW, grid)

    def _of_model(self, images_nCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
        from reorder_core.opened import open_run
        from reorder_saliency.measures import maps
        from reorder_saliency.objective import Objective

        assert self.settings.run is not None
        channels, height, width = images_nCHW.shape[1:]
        if unfit := misfit(self.settings.run, grid, DataFacts(height, width, channels)):
            raise UsageError(unfit)
        with torch.random.fork_rng(devices=[]):  # opening a run seeds torch, and another run is just being built
            opened = open_run(self.settings.run, "cpu")
        numbers = [
            torch.arange(start, min(start + _BATCH, len(images_nCHW))) for start in range(0, len(images_nCHW), _BATCH)
        ]
        batches = [Batch(torch.from_numpy(images_nCHW)[index_B], None, index_B) for index_B in numbers]
        found: NDArray[np.float64] = maps(self.settings.source, Objective(opened, opened.order_N), batches).mean(axis=0)
        return found


def by_salience(salience_N: NDArray[np.float64], direction: str) -> NDArray[np.int64]:
    """Patches by ascending or descending salience, int64 [N]; equal ones by their number."""
    sign = 1 if direction == "ascending" else -1
    order_N: NDArray[np.int64] = np.argsort(sign * salience_N, kind="stable").astype(np.int64)
    return order_N
