"""Where images come from: a recipe's data set, or any folder of pictures.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, DataFacts, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.interfaces.dataset import evenly
from reorder_core.pixels import (
    AT_ONCE,
    FolderImages,
    Loaded,
    Map,
    Pixels,
    Size,
    SplitImages,
    Unreadable,
    chunks,
    joined,
)
from reorder_core.recipe import Recipe

FIT_IMAGES = 1024  # as many as a run shows to an ordering that learns from data


@dataclass(frozen=True)
class Images:
    """Numbered images of one size. label: the data set's name, or the folder. context: to build components in.

    folder: where they lie, where they are files of a folder.
    """

    label: str
    context: Context
    pixels: Pixels
    folder: Path | None = None

    @classmethod
    def of_recipe(cls, recipe: Recipe, split: Literal["train", "validation"], unreadable: Unreadable) -> Images:
        """One split of its data set, as the first epoch shows it; nothing else of the recipe is built."""
        facts = recipe.facts
        context = Context.of_data(facts.data, facts.patch, recipe.seed, Catalogue.load().build)
        dataset = context.resolve(recipe.data.ref)
        root = getattr(recipe.data.settings, "root", None)
        folder = None if root is None else Path(root).expanduser().resolve()
        return cls(recipe.data.name, context, SplitImages(getattr(dataset, split), unreadable), folder)

    @classmethod
    def of_folder(cls, root: Path, patch: int, size: Size | None, unreadable: Unreadable, seed: int) -> Images:
        """Every picture below the folder. Raises `UsageError` also for a patch that does not divide them."""
        folder = FolderImages(root, size, unreadable)
        data = DataFacts(*folder.size, folder.channels, train=len(folder))
        context = Context.of_data(data, patch, seed, Catalogue.load().build)
        return cls(str(root), context, folder, root.resolve())

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """As `Pixels.load`."""
        return self.pixels.load(numbers, mapping)


def chosen_numbers(images: int, wanted: int | None, seed: int) -> Sequence[int]:
    """All numbers, or `wanted` of them drawn without replacement by the seed, ascending."""
    if wanted is None or wanted >= images:
        return range(images)
    drawn = np.sort(np.random.default_rng(seed).choice(images, size=wanted, replace=False))
    return [int(number) for number in drawn]


def to_fit(images: Images, numbers: Sequence[int]) -> NDArray[np.float32]:
    """The images that a component may learn from: some of those measured, evenly spread. Read at each call."""
    few = [numbers[place] for place in evenly(len(numbers), FIT_IMAGES)]
    found = joined([images.load(part) for part in chunks(few, AT_ONCE)])
    if not len(found):
        raise UsageError(f"{images.label}: none of {len(few)} images can be read: {found.skipped[0]}")
    return found.images_BCHW
