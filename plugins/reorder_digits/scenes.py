"""The data set `digit_scenes`: several of scikit-learn's digits on a canvas, and what is known of them.

B items, n scenes, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import Batch, Context
from reorder_digits.digits import Scale
from reorder_digits.draws import key_of
from reorder_digits.scenes_composition import SceneComposer, Scenes
from reorder_digits.scenes_targets import targets, texts
from reorder_digits.settings import DigitScenesSettings
from reorder_digits.source import CLASSES, digit_pools

_TRAIN, _VALIDATION = 0, 1
_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class SceneSplit:
    """Scenes of one split, of which an item shows one; where questions are the target, several items show the same.

    made, said: the scenes of epoch 0 and their texts, kept in memory. fresh: later epochs are composed when asked for.
    """

    composer: SceneComposer
    part: int
    made: Scenes
    said: list[tuple[Any, ...]]
    scale: Scale
    fresh: bool

    @property
    def items(self) -> int:
        """How many items show the same scene."""
        settings = self.composer.settings
        return settings.questions_per_scene if settings.target == "questions" else 1

    def __len__(self) -> int:
        return len(self.made) * self.items

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The items with these numbers in this epoch, pictures normalised."""
        index_B = np.asarray(indices, dtype=np.int64)
        scenes, target = self._of(index_B, epoch if self.fresh else 0)
        return Batch(self.scale.images(scenes.pixels_BSS), target, torch.from_numpy(index_B))

    def targets(self) -> Iterable[Any]:
        """The target of every item of epoch 0, in order."""
        for at in range(0, len(self), _CHUNK):
            yield from self._of(np.arange(at, min(at + _CHUNK, len(self))), 0)[1]

    def object_counts(self) -> Iterable[tuple[str, int]]:
        """The name and the number of digits of every item's scene in epoch 0."""
        counts = enumerate(self.made.count_B.tolist())
        return ((f"scene {number}", count) for number, count in counts for _ in range(self.items))

    def _of(self, index_B: NDArray[np.int64], epoch: int) -> tuple[Scenes, Any]:
        settings, number_B = self.composer.settings, index_B // self.items
        if epoch == 0:
            scenes = self.made.take(number_B)
            said = [self.said[number] for number in number_B.tolist()] if self.said else []
        else:
            scenes, said = composed(self.composer, self.part, epoch, number_B)
        return scenes, targets(scenes, said, number_B, index_B % self.items, settings.target)


def composed(
    composer: SceneComposer, part: int, epoch: int, number_B: NDArray[np.int64]
) -> tuple[Scenes, list[tuple[Any, ...]]]:
    """Scenes of a split in an epoch, and their texts where the target is text."""
    settings, key = composer.settings, key_of(composer.settings.seed, part, epoch)
    scenes = composer.compose(key, number_B)
    return scenes, texts(scenes, key, number_B, settings) if settings.target in ("captions", "questions") else []


class DigitScenes:
    """Train and validation scenes, each made of its own split's digits only.

    Normalised by mean and standard deviation of the training pictures (of epoch 0; their first 8,192).
    """

    in_memory = True

    def __init__(self, settings: DigitScenesSettings, context: Context) -> None:
        self.facts = settings.describe()
        named = {"boxes": CLASSES, "classes": CLASSES, "mask": ("background", *CLASSES)}
        self.classes: tuple[str, ...] = named.get(settings.target, ())
        train, validation = (SceneComposer(pool, settings) for pool in digit_pools())
        made = composed(train, _TRAIN, 0, np.arange(settings.train))
        scale = Scale.of(made[0].pixels_BSS[:8192])
        self.train = SceneSplit(train, _TRAIN, *made, scale, settings.fresh)
        kept = composed(validation, _VALIDATION, 0, np.arange(settings.validation))
        self.validation = SceneSplit(validation, _VALIDATION, *kept, scale, False)
