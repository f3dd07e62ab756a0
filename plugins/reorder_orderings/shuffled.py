"""One order drawn by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, Grid
from reorder_orderings.settings import RandomSettings


def shuffled(n: int, seed: int) -> NDArray[np.int64]:
    """A permutation of n patches, int64 [n], each as likely as the other.

    Sorted from the raw stream of PCG64, which NumPy promises never to change: the same order on every machine.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable").astype(np.int64)


class Random:
    """`shuffled` as a component; patches of all frames are mixed."""

    def __init__(self, settings: RandomSettings, context: Context) -> None:
        self.settings = settings

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The order drawn for this seed and number of patches, int64 [N]."""
        return shuffled(grid.size, self.settings.seed)
