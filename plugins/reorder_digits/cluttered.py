"""The data set `cluttered_digits`: after cluttered MNIST (Mnih et al. 2014, 4.1), from scikit-learn's digits.

B pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reorder_core import Batch, Context
from reorder_digits.composition import Composer
from reorder_digits.digits import MemorySplit, Scale
from reorder_digits.draws import key_of
from reorder_digits.settings import ClutteredDigitsSettings
from reorder_digits.source import CLASSES, digit_pools

_TRAIN, _VALIDATION = 0, 1


@dataclass(frozen=True, slots=True)
class FreshSplit:
    """Pictures composed when they are asked for, new ones in every epoch; those of epoch 0 are `fresh: false`'s."""

    composer: Composer
    count: int
    scale: Scale

    def __len__(self) -> int:
        return self.count

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The pictures with these numbers in this epoch, normalised."""
        index_B = np.asarray(indices, dtype=np.int64)
        made = self.composer.compose(key_of(self.composer.settings.seed, _TRAIN, epoch), index_B)
        return self.scale.batch(made.pixels_BSS, made.target_B, index_B)


class ClutteredDigits:
    """Train and validation pictures, each made of its own split's digits only.

    Normalised by mean and standard deviation of the training pictures (of epoch 0; their first 8,192).
    """

    in_memory = True
    classes = CLASSES

    def __init__(self, settings: ClutteredDigitsSettings, context: Context) -> None:
        self.facts = settings.describe()
        train_pool, validation_pool = digit_pools()
        train, validation = Composer(train_pool, settings), Composer(validation_pool, settings)

        counted = min(settings.train, 8192) if settings.fresh else settings.train
        made = train.compose(key_of(settings.seed, _TRAIN, 0), np.arange(counted))
        scale = Scale.of(made.pixels_BSS[:8192])
        if settings.fresh:
            self.train: FreshSplit | MemorySplit = FreshSplit(train, settings.train, scale)
        else:
            self.train = MemorySplit(made.pixels_BSS, made.target_B, scale)
        made = validation.compose(key_of(settings.seed, _VALIDATION, 0), np.arange(settings.validation))
        self.validation = MemorySplit(made.pixels_BSS, made.target_B, scale)
