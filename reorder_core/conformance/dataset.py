"""The contract of a data set. B images, C channels, H W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from reorder_core.catalogue import Catalogue
from reorder_core.conformance.building import (
    Buildable,
    Given,
    build,
    context,
    leaves_global_random_state,
    require,
    written,
)
from reorder_core.conformance.targets import check_targets, same_target
from reorder_core.grid import Grid
from reorder_core.interfaces.dataset import Batch
from reorder_core.settings import DataFacts, DatasetSettings


def check_dataset(component: Buildable, settings: Given = None, *, patch: int | None = None, images: int = 12) -> None:
    """What `describe()` says is what is loaded, and an image is a pure function of (seed, epoch, index).

    - Lengths, channels, sizes and classes are those described; images are finite float32 [B, C, H, W].
    - The same image comes alone, beside others, in any order, twice in a batch, and from a second copy of the data
      set built with the same seed; loading it leaves global random states alone.
    - Validation images do not change from epoch to epoch. Targets are what `interfaces/targets.py` says of their type:
      classes from 0 to classes-1, boxes inside of the image, masks of its size, captions with words.
    - `targets()` and `object_counts()` of a split, where there are any, give as many as there are images.

    patch: the side of a patch, for the context; by default the whole image is one patch.
    """
    facts = _described(component, settings)
    side = patch or facts.height
    grid = Grid(max(1, facts.height // side), max(1, facts.width // side))
    one, two = (build("dataset", component, settings, context(grid, patch=side)) for _ in range(2))
    require(one.facts == facts, f"facts must be what describe() says: {facts}, not {one.facts}")
    require(isinstance(one.in_memory, bool), "in_memory must be True or False")
    if facts.target in ("class", "classes", "mask", "boxes"):
        require(
            len(one.classes) == facts.classes, f"classes must name all {facts.classes} classes, not {len(one.classes)}"
        )
    for name in ("train", "validation"):
        split = getattr(one, name)
        described = getattr(facts, name)
        require(len(split) > 0, f"the split '{name}' must have images")
        require(described in (None, len(split)), f"describe() says {described} {name} images, there are {len(split)}")
        _check_split(split, getattr(two, name), name, facts, min(images, len(split)))


def _described(component: Buildable, settings: Given) -> DataFacts:
    if isinstance(component, str):
        catalogue = Catalogue.load()
        known: Any = catalogue.settings(catalogue.find("dataset", component), written(settings))
    else:
        known = settings
    require(isinstance(known, DatasetSettings), "a data set's settings must derive from reorder_core.DatasetSettings")
    facts: DataFacts = known.describe()
    require(isinstance(facts, DataFacts), "describe() must return DataFacts")
    return facts


def _check_split(split: Any, copy: Any, name: str, facts: DataFacts, images: int) -> None:
    last = len(split) - 1
    index_B = sorted({round(place * last / max(1, images - 1)) for place in range(images)})
    with leaves_global_random_state(f"loading {name} images"):
        batch = split.load(index_B, 0)
    _check_batch(batch, index_B, facts, name)
    reverse = split.load(index_B[::-1], 0)
    require(_same(batch, reverse, flip=True), f"{name}: images must not depend on the order in which they are loaded")
    for place, index in enumerate(index_B[:4]):
        alone = split.load([index], 0)
        require(
            torch.equal(alone.images_BCHW[0], batch.images_BCHW[place]),
            f"{name}: image {index} must be the same alone as beside others",
        )
    twice = split.load([last, last], 1)
    require(torch.equal(twice.images_BCHW[0], twice.images_BCHW[1]), f"{name}: an index loaded twice is one image")
    for epoch in (0, 3):
        same = _same(split.load(index_B, epoch), copy.load(index_B, epoch))
        require(same, f"{name}: the same (seed, epoch, index) must give the same image in every copy of the data set")
    if hasattr(split, "targets"):
        found = sum(1 for _ in split.targets())
        require(found == len(split), f"{name}: targets() must give one an image, {len(split)}, not {found}")
    if hasattr(split, "object_counts"):
        found = sum(1 for _ in split.object_counts())
        require(found == len(split), f"{name}: object_counts() must give one an image, {len(split)}, not {found}")
    if name == "validation":
        require(_same(batch, split.load(index_B, 5)), "validation images must be the same in every epoch")


def _check_batch(batch: Any, index_B: Sequence[int], facts: DataFacts, name: str) -> None:
    require(isinstance(batch, Batch), f"load must return a Batch, not {type(batch).__name__}")
    shape = (len(index_B), facts.channels, facts.height, facts.width)
    images_BCHW = batch.images_BCHW
    require(images_BCHW.dtype == torch.float32, f"{name}: images must be float32, not {images_BCHW.dtype}")
    require(
        tuple(images_BCHW.shape) == shape,
        f"{name}: describe() promises images of {list(shape)}, not {list(images_BCHW.shape)}",
    )
    require(bool(images_BCHW.isfinite().all()), f"{name}: pixels must be finite")
    require(batch.index_B.tolist() == list(index_B), f"{name}: index_B must be the numbers that were asked for")
    require(batch.index_B.dtype == torch.int64, f"{name}: index_B must be int64")
    check_targets(batch.target, facts, len(index_B), name)


def _same(one: Batch, other: Batch, flip: bool = False) -> bool:
    images, target = (other.images_BCHW.flip(0), other.target) if flip else (other.images_BCHW, other.target)
    if isinstance(target, torch.Tensor):
        target = target.flip(0) if flip else target
        return torch.equal(one.target, target) and torch.equal(one.images_BCHW, images)
    if isinstance(target, list):
        target = target[::-1] if flip else target
        pairs = zip(one.target, target, strict=True)
        return torch.equal(one.images_BCHW, images) and all(same_target(*pair) for pair in pairs)
    return torch.equal(one.images_BCHW, images)
