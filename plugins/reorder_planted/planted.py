"""The data set `planted`.

B pictures, H W pixels, n pictures of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import Batch, Context
from reorder_planted.composition import compose
from reorder_planted.settings import PlantedSettings

_TRAIN, _VALIDATION = 0, 1


@dataclass(frozen=True, slots=True)
class PlantedSplit:
    """Pictures that lie in memory, normalised, and never change."""

    pixels_nHW: NDArray[np.float32]
    target_n: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target_n)

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The pictures with these numbers; the epoch changes nothing."""
        index_B = np.asarray(indices, dtype=np.int64)
        images_BHW = torch.from_numpy(self.pixels_nHW[index_B])
        return Batch(images_BHW[:, None], torch.from_numpy(self.target_n[index_B]), torch.from_numpy(index_B))


class Planted:
    """Train and validation pictures from generators of their own, normalised by the training pictures' mean and std."""

    in_memory = True

    def __init__(self, settings: PlantedSettings, context: Context) -> None:
        self.facts = settings.describe()
        self.classes = tuple(f"pattern {number}" for number in range(settings.classes))
        made = compose(settings, _TRAIN, range(settings.train))
        mean, std = made.pixels_BSS.mean(dtype=np.float64), made.pixels_BSS.std(dtype=np.float64)

        def split(pixels_nHW: NDArray[np.float32], target_n: NDArray[np.int64]) -> PlantedSplit:
            return PlantedSplit((pixels_nHW - np.float32(mean)) / np.float32(std or 1.0), target_n)

        self.train = split(made.pixels_BSS, made.target_B)
        made = compose(settings, _VALIDATION, range(settings.validation))
        self.validation = split(made.pixels_BSS, made.target_B)
