"""The data set `coco`: images with what COCO JSON says about them (Lin et al. 2014, arXiv 1405.0312).

O objects, K classes, H W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as run_lengths
from torch import Tensor

from reorder_annotated_data.coco_file import CocoFile, CocoImage, coco_file
from reorder_annotated_data.coco_objects import CocoObject
from reorder_annotated_data.pipeline_settings import SplitName
from reorder_annotated_data.settings import CocoSettings
from reorder_annotated_data.split import require_files, splits
from reorder_core import Context, RunError, UsageError
from reorder_core.interfaces.targets import IGNORED, Objects


def mask_of(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Polygons or run lengths to uint8 [H, W] of 0 and 1, by pycocotools. size: (height, width).

    Raises `ValueError` for run lengths in letters that pycocotools cannot read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools' own, about NumPy 2
        if isinstance(segmentation, list):
            coded = run_lengths.merge(run_lengths.frPyObjects(segmentation, *size))
        elif isinstance(segmentation["counts"], list):
            coded = run_lengths.frPyObjects(segmentation, *size)
        else:
            coded = segmentation
        decoded: np.ndarray = run_lengths.decode(coded)
    return decoded


def _outlined(each: CocoObject, size: tuple[int, int]) -> np.ndarray:
    """An object's mask, bool [H, W]. Raises `ValueError` with its id where its run lengths cannot be read."""
    try:
        return mask_of(each.segmentation, size).astype(bool)
    except ValueError as problem:
        raise ValueError(f"the run lengths of annotation {each.number} cannot be read ({problem})") from problem


def semantic_mask(objects: Sequence[CocoObject], size: tuple[int, int]) -> Tensor:
    """The class of each pixel, uint8 [H, W]: 0 background, 1 + label; `IGNORED` where only a crowd is.

    Where objects overlap the smaller one is seen: it would vanish below the larger.
    """
    drawn = [(each, _outlined(each, size)) for each in objects]
    mask_HW = np.zeros(size, np.uint8)
    for each, own_HW in sorted(drawn, key=lambda pair: (not pair[0].crowd, -int(pair[1].sum()), pair[0].number)):
        mask_HW[own_HW] = IGNORED if each.crowd else 1 + each.label
    return torch.from_numpy(mask_HW)


def objects_of(image: CocoImage, masks: bool) -> Objects:
    """All objects of an image in its own pixels, crowds marked. Raises `ValueError` where a mask cannot be read."""
    boxes = [each.box for each in image.objects]
    area = [each.area or (each.box[2] - each.box[0]) * (each.box[3] - each.box[1]) for each in image.objects]
    masks_OHW = None
    if masks:
        assert image.size is not None
        drawn = [_outlined(each, image.size) for each in image.objects]
        masks_OHW = torch.from_numpy(np.stack(drawn) if drawn else np.zeros((0, *image.size), bool))
    return Objects(
        boxes_O4=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        label_O=torch.tensor([each.label for each in image.objects], dtype=torch.int64),
        masks_OHW=masks_OHW,
        crowd_O=torch.tensor([each.crowd for each in image.objects], dtype=torch.bool),
        area_O=torch.tensor(area, dtype=torch.float32),
        name=image.file,
    )


class CocoSource:
    """The images of a split and their annotations."""

    def __init__(self, settings: CocoSettings, split: SplitName, images: Sequence[CocoImage], classes: int) -> None:
        self.images = tuple(images)
        self._folder = settings.images(split)
        self._annotations = settings.annotations(split)
        self._kind = settings.target
        self._masks = settings.masks
        self._classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> Path:
        """The image's file."""
        return self._folder / self.images[index].file

    def size(self, index: int) -> tuple[int, int] | None:
        """(height, width), as the JSON has it."""
        return self.images[index].size

    def origin(self, index: int) -> str:
        """The JSON file and the image's id."""
        return f"image {self.images[index].number} in {self._annotations}"

    def object_counts(self) -> Iterable[tuple[str, int]]:
        """The file and the number of objects of every image, crowds apart."""
        return ((image.file, sum(not each.crowd for each in image.objects)) for image in self.images)

    def target(self, index: int) -> Any:
        """`Objects`, a mask uint8 [H, W], classes float32 [K] or captions, for the picture as it is in the file.

        Raises `RunError` with file and id where a mask cannot be read.
        """
        try:
            return self._target(self.images[index])
        except ValueError as problem:
            raise RunError(f"{self._annotations}: {problem}: correct the file") from problem

    def _target(self, image: CocoImage) -> Any:
        if self._kind == "captions":
            return image.captions
        if self._kind == "boxes":
            return objects_of(image, self._masks)
        if self._kind == "mask":
            assert image.size is not None
            return semantic_mask(image.objects, image.size)
        seen_K = torch.zeros(self._classes)
        seen_K[[each.label for each in image.objects]] = 1.0
        return seen_K


class Coco:
    """Raises `UsageError` for what is wrong in the JSON, missing images, splits with other categories."""

    in_memory = False

    def __init__(self, settings: CocoSettings, context: Context) -> None:
        self.facts = settings.describe()
        train, validation = coco_file(settings, "train"), coco_file(settings, "validation")
        if train.classes != validation.classes:
            raise UsageError(
                f"validation_annotations: {settings.annotations('validation')} has other categories than "
                f"{settings.annotations('train')}; name those to keep in `categories`"
            )
        if settings.classes not in (None, len(train.classes)):
            raise UsageError(
                f"classes: the recipe says {settings.classes}, and {settings.annotations('train')} has "
                f"{len(train.classes)} categories: correct one of them"
            )
        self.classes = ("background", *train.classes) if settings.target == "mask" else train.classes
        kept = [
            image for image in train.images if not settings.drop_empty or any(not each.crowd for each in image.objects)
        ]
        self.train, self.validation = splits(
            settings,
            context,
            self._source(settings, "train", train, kept),
            self._source(settings, "validation", validation, validation.images),
        )

    @staticmethod
    def _source(settings: CocoSettings, split: SplitName, file: CocoFile, images: Sequence[CocoImage]) -> CocoSource:
        folder, path = settings.images(split), settings.annotations(split)
        if not images:
            raise UsageError(
                f"{split}_annotations: {path} leaves no {split} image with an object: choose other `categories`, or "
                f"leave out drop_empty"
            )
        named = ((folder / image.file, f"{path}: image {image.number}") for image in images)
        require_files(named, folder, f"{split}_images")
        return CocoSource(settings, split, images, len(file.classes))
