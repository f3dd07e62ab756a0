"""Randomness of data: a pure function of (seed, epoch, number of the image), and global states left as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

from reorder_core.interfaces.context import Context


def image_seed(seed: int, epoch: int, index: int) -> int:
    """63 bits out of three whole numbers, the same on every machine."""
    digest = blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def augmentation_seed(given: int | None, context: Context) -> int:
    """`given`, or the run's own seed (its generator's first seed; nothing is drawn from it)."""
    if given is not None:
        return given
    return 0 if context.generator is None else context.generator.initial_seed()


@contextmanager
def own_randomness() -> Iterator[Callable[[int], None]]:
    """Gives a function that seeds Python's, NumPy's and torch's global generators; puts them back as they were after.

    timm and torchvision draw from all three. torch's CPU generator is seeded by itself: `torch.manual_seed` would
    seed every GPU as well.
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()

    def seed(number: int) -> None:
        random.seed(number)
        np.random.seed(number % 2**32)
        torch.default_generator.manual_seed(number)

    try:
        yield seed
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])
