"""One split of pictures that are read one by one.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from reorder_core import Batch, RunError
from reorder_core.pixels import pictures_error
from reorder_core.randomness import image_seed, own_randomness
from reorder_image_data.pipeline import Transform


class Source(Protocol):
    """Pictures with classes, by number; picklable, so that worker processes can read."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Image, int]:
        """The picture, decoded, and its class. Whatever it raises becomes a `RunError` that names the picture."""
        ...

    def name(self, index: int) -> str:
        """The picture's file, or another name by which a person finds it."""
        ...


@dataclass(frozen=True, slots=True)
class PictureSplit:
    """Reads, converts, transforms. seed None: nothing random is done, and no seeding either."""

    source: Source
    transform: Transform
    channels: int
    size: tuple[int, int]
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.source)

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The images with these numbers as they are in this epoch. Raises `RunError` naming an unreadable picture."""
        images, targets = [], []
        with own_randomness() as seed:
            for index in map(int, indices):
                picture, target = self._read(index)
                if self.seed is not None:
                    seed(image_seed(self.seed, epoch, index))
                images.append(self._transformed(picture, index))
                targets.append(target)
        return Batch(torch.stack(images), torch.tensor(targets), torch.tensor([int(index) for index in indices]))

    def _read(self, index: int) -> tuple[Image, int]:
        with pictures_error(self.source.name(index)):
            picture, target = self.source.read(index)
            return picture.convert("RGB" if self.channels == 3 else "L"), int(target)

    def _transformed(self, picture: Image, index: int) -> Tensor:
        image_CHW = self.transform(picture)
        expected = (self.channels, *self.size)
        if tuple(image_CHW.shape) != expected:
            raise RunError(
                f"the image {self.source.name(index)} became {tuple(image_CHW.shape)} and not {expected}: set `resize`"
            )
        return image_CHW
