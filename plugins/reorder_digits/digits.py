"""The data set `digits`, and the split in memory that both data sets use.

B images, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import Batch, Context
from reorder_digits.settings import DigitsSettings
from reorder_digits.source import CLASSES, Pool, digit_pools


@dataclass(frozen=True, slots=True)
class Scale:
    """Normalisation: (pixel - mean) / std, pixels in uint8 or float32."""

    mean: float
    std: float

    @classmethod
    def of(cls, pixels: NDArray[np.generic]) -> Scale:
        """Mean and standard deviation of all pixels, summed in float64."""
        return cls(float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64)) or 1.0)

    def images(self, pixels_BHW: NDArray[np.generic]) -> torch.Tensor:
        """Normalised, one channel: float32 [B, 1, H, W]."""
        return torch.from_numpy(pixels_BHW).float().sub_(self.mean).div_(self.std)[:, None]

    def batch(self, pixels_BHW: NDArray[np.generic], target_B: NDArray[np.int64], index_B: NDArray[np.int64]) -> Batch:
        """The normalised batch with its classes."""
        return Batch(self.images(pixels_BHW), torch.from_numpy(target_B), torch.from_numpy(index_B))


@dataclass(frozen=True, slots=True)
class MemorySplit:
    """Pictures that lie in memory and never change."""

    pixels_nHW: NDArray[np.generic]
    target_n: NDArray[np.int64]
    scale: Scale

    def __len__(self) -> int:
        return len(self.target_n)

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The pictures with these numbers, normalised; the epoch changes nothing."""
        index_B = np.asarray(indices, dtype=np.int64)
        return self.scale.batch(self.pixels_nHW[index_B], self.target_n[index_B], index_B)


class Digits:
    """1,797 digits of 8x8 pixels, normalised by the training split's mean and standard deviation."""

    in_memory = True
    classes = CLASSES

    def __init__(self, settings: DigitsSettings, context: Context) -> None:
        self.facts = settings.describe()
        train, validation = digit_pools(settings.validation, settings.split_seed)
        scale = Scale.of(train.ink_PHW)

        def split(pool: Pool) -> MemorySplit:
            return MemorySplit(pool.ink_PHW, pool.target_P, scale)

        self.train = split(train)
        self.validation = split(validation)
