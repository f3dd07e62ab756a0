"""Where images come from: a recipe's data set, or any folder of pictures; read a few at a time.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, RunError, Split, UsageError
from reorder_core.recipe import Recipe
from reorder_prior.unit import UnitRange

FIT_IMAGES = 1024  # as many as a run shows to an ordering that learns from data
AT_ONCE = 64  # images held as pixels at a time
Unreadable = Literal["skip", "stop"]
#: How images are loaded one after the other, or by several threads: `map`, or that of a pool.
Map = Callable[..., Any]


@dataclass(frozen=True)
class Loaded:
    """images_BCHW: float32 in [0, 1]. number_B: which images these are. skipped: what could not be read, and why."""

    images_BCHW: NDArray[np.float32]
    number_B: NDArray[np.int64]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.number_B)


class Images(Protocol):
    """Numbered images of one size. label: the data set's name, or the folder. context: to build components in."""

    label: str
    context: Context

    def __len__(self) -> int: ...

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """The images with these numbers. Raises `RunError` for an unreadable one, where it is not to be skipped."""
        ...


@dataclass(frozen=True)
class RecipeImages:
    """One split of a recipe's data set, as its first epoch shows it."""

    label: str
    context: Context
    split: Split
    unreadable: Unreadable
    unit: UnitRange

    @classmethod
    def open(cls, recipe: Recipe, split: Literal["train", "validation"], unreadable: Unreadable) -> RecipeImages:
        """Build the data set, nothing else of the recipe, and find the range of its pixels in its first images."""
        import torch

        facts = recipe.facts
        catalogue = recipe.catalogue
        context = Context(
            grid=facts.grid,
            patch=facts.patch,
            channels=facts.data.channels,
            data=facts.data,
            generator=torch.Generator().manual_seed(recipe.seed),
            builder=catalogue.build,
        ).changed()
        dataset = catalogue.build(recipe.data.ref, context)
        chosen = getattr(dataset, split)
        first = range(min(FIT_IMAGES, len(chosen)))
        raw = _Raw(chosen, unreadable)
        label = f"{recipe.path or recipe.name} ({recipe.data.name}, {split})"
        readable = [each.images_BCHW for part in chunks(first, AT_ONCE) if len(each := raw.load(part))]
        if not readable:
            raise UsageError(f"{label}: none of the first {len(first)} images can be read: look at the data set")
        unit = UnitRange.of(readable)
        return cls(recipe.data.name, context, chosen, unreadable, unit)

    def __len__(self) -> int:
        return len(self.split)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """In the caller's thread: a data set's augmentation may seed global generators."""
        found = _Raw(self.split, self.unreadable).load(numbers)
        return Loaded(self.unit.apply(found.images_BCHW), found.number_B, found.skipped)


@dataclass(frozen=True)
class _Raw:
    """A split's images as they are, normalised."""

    split: Split
    unreadable: Unreadable

    def load(self, numbers: Sequence[int]) -> Loaded:
        try:
            return self._loaded(numbers)
        except RunError as error:
            if self.unreadable == "stop":
                raise
            if len(numbers) == 1:
                return Loaded(np.zeros((0, 1, 1, 1), np.float32), np.zeros(0, np.int64), (str(error),))
        return joined([self.load([number]) for number in numbers])

    def _loaded(self, numbers: Sequence[int]) -> Loaded:
        batch = self.split.load(list(numbers), 0)
        return Loaded(batch.images_BCHW.numpy(), np.asarray(numbers, dtype=np.int64))


def joined(parts: Sequence[Loaded]) -> Loaded:
    """Several lots of images as one, in their order."""
    skipped = tuple(reason for part in parts for reason in part.skipped)
    full = [part for part in parts if len(part)] or list(parts[:1])
    return Loaded(
        np.concatenate([part.images_BCHW for part in full]), np.concatenate([part.number_B for part in full]), skipped
    )


def chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The numbers, `size` at a time."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def chosen_numbers(images: int, wanted: int | None, seed: int) -> Sequence[int]:
    """All numbers, or `wanted` of them drawn without replacement by the seed, ascending."""
    if wanted is None or wanted >= images:
        return range(images)
    drawn = np.sort(np.random.default_rng(seed).choice(images, size=wanted, replace=False))
    return [int(number) for number in drawn]


def to_fit(images: Images, numbers: Sequence[int]) -> NDArray[np.float32]:
    """The images that a component may learn from: the first of those measured, [B, C, H, W]. Read at each call."""
    few = numbers[:FIT_IMAGES]
    found = joined([images.load(part) for part in chunks(few, AT_ONCE)])
    if not len(found):
        raise UsageError(f"{images.label}: none of the first {len(few)} images can be read: {found.skipped[0]}")
    return found.images_BCHW
