"""The images to learn from, a batch at a time: some of them, counted where they cannot be read.

B images, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import RunError
from reorder_core.pixels import Loaded, Map, Pixels


@dataclass(frozen=True)
class Counted:
    """The images of a folder or a split. skipped: those that could not be read, each once, however often tried."""

    pixels: Pixels
    skipped: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """By a few threads, whatever the mapping. Raises `RunError` where not one of all images can be read."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = self.pixels.load(numbers, pool.map)
        self.skipped.update({*map(int, numbers)} - {*found.number_B.tolist()})
        if len(self.skipped) == len(self):
            raise RunError(f"not one of {len(self)} images can be read: {found.skipped[0]}")
        return found


@dataclass(frozen=True)
class Part:
    """Some of the images: its number i is their number `numbers[i]`, which is what they keep in `Loaded`."""

    pixels: Pixels
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        return self.pixels.load([int(self.numbers[number]) for number in numbers], mapping)


def batches(pixels: Pixels, size: int, generator: torch.Generator | None = None) -> Iterator[NDArray[np.float32]]:
    """Every image once, [B, C, H, W], `size` at a time: in an order drawn from the generator, or as they come.

    Batches of which no image can be read are left out.
    """
    number_I = torch.arange(len(pixels)) if generator is None else torch.randperm(len(pixels), generator=generator)
    for part in torch.split(number_I, size):
        found = pixels.load(part.tolist())
        if len(found):
            yield found.images_BCHW
