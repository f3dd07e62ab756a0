"""Where images to learn from come from: numbered, read a few at a time, in [0, 1].

B images, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import RunError
from reorder_core.pixels import Pixels


class Source(Protocol):
    """Images of one size. `read` gives fewer than asked for where some cannot be read and are to be skipped."""

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """The images with these numbers, float32 [B, C, H, W] in [0, 1]."""
        ...


@dataclass(frozen=True)
class MemoryImages:
    """Images that lie in memory."""

    images_BCHW: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images_BCHW)

    def read(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        return self.images_BCHW[np.asarray(numbers, dtype=np.int64)]


@dataclass(frozen=True)
class Counted:
    """The images of a folder or a split. skipped: those that could not be read, each once, however often tried."""

    pixels: Pixels
    skipped: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Raises `RunError` where not one of all images can be read."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = self.pixels.load(numbers, pool.map)
        self.skipped.update({*map(int, numbers)} - {*found.number_B.tolist()})
        if len(self.skipped) == len(self):
            raise RunError(f"not one of {len(self)} images can be read: {found.skipped[0]}")
        return found.images_BCHW


@dataclass(frozen=True)
class Part:
    """Some of the images of a source: its number i is their number `numbers[i]`."""

    source: Source
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        return self.source.read([int(self.numbers[number]) for number in numbers])


def batches(source: Source, size: int, generator: torch.Generator | None = None) -> Iterator[NDArray[np.float32]]:
    """Every image once, `size` at a time: in an order drawn from the generator, or as they come.

    Batches of which no image can be read are left out.
    """
    number_I = torch.arange(len(source)) if generator is None else torch.randperm(len(source), generator=generator)
    for part in torch.split(number_I, size):
        images_BCHW = source.read(part.tolist())
        if len(images_BCHW):
            yield images_BCHW
