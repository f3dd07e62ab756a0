"""The ordering `saliency`: patches by their importance.

n images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import Batch, Context, DataFacts, Grid, UsageError
from reorder_core.fitted_ordering import FittedOrdering
from reorder_core.opened import open_run
from reorder_saliency.measures import maps, variance_N
from reorder_saliency.objective import Objective
from reorder_saliency.settings import SaliencySettings, misfit

_BATCH = 32


class Saliency(FittedOrdering):
    """Ascending or descending importance over the training images; patches of the same one stand by their number.

    The model of a run reads the images in the order that the run ended with, on the CPU: all processes of a training
    must find the same order.
    """

    name = "saliency"

    def __init__(self, settings: SaliencySettings, context: Context) -> None:
        super().__init__()
        self.settings = settings
        self.images = settings.images

    def order_of(self, images_nCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.int64]:
        """By the importance of each patch, int64 [N].

        Raises `UsageError` for a run on another grid or other images, for one that is not finished, and for a model
        that has no attention to follow.
        """
        run = self.settings.run
        salience_N = variance_N(images_nCHW, grid) if run is None else self._of_model(run, images_nCHW, grid)
        return by_salience(salience_N, self.settings.direction)

    def _of_model(self, run: Path, images_nCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
        channels, height, width = images_nCHW.shape[1:]
        if unfit := misfit(run, grid, DataFacts(height, width, channels)):
            raise UsageError(unfit)
        with torch.random.fork_rng(devices=[]):  # opening a run seeds torch, and another run is just being built
            opened = open_run(run, "cpu")
        numbers = torch.arange(len(images_nCHW)).split(_BATCH)
        batches = [Batch(torch.from_numpy(images_nCHW)[index_B], None, index_B) for index_B in numbers]
        try:
            map_BN = maps(self.settings.source, Objective(opened, opened.order_N), batches)
        except UsageError as error:
            raise UsageError(f"the ordering 'saliency' cannot ask the run {run}: {error}") from error
        found_N: NDArray[np.float64] = map_BN.mean(axis=0)
        return found_N


def by_salience(salience_N: NDArray[np.float64], direction: str) -> NDArray[np.int64]:
    """Patches by ascending or descending salience, int64 [N]; equal ones by their number."""
    sign = 1 if direction == "ascending" else -1
    order_N: NDArray[np.int64] = np.argsort(sign * salience_N, kind="stable").astype(np.int64)
    return order_N
