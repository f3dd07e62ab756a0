"""What a COCO JSON file says, checked and numbered; read once in a process. Needs no torch.

COCO's format: Lin et al. 2014; cocodataset.org/#format-data. Boxes there are (left, top, width, height) in pixels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reorder_annotated_data.coco_objects import CocoObject, FaultyAnnotation, object_of
from reorder_annotated_data.pipeline_settings import SplitName
from reorder_annotated_data.settings import CocoSettings
from reorder_annotated_data.text_files import read_json, records, stamp, value
from reorder_core import UsageError
from reorder_core.errors import did_you_mean

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image and what is known of it. size: (height, width) in pixels, where the file says it."""

    number: int
    file: str
    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CocoFile:
    """classes: the names of the categories that are kept, in the order of their numbers.

    repaired: how often `faulty: repair` did what, in words.
    """

    classes: tuple[str, ...]
    images: tuple[CocoImage, ...]
    repaired: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What of the file is read; with the file's stamp the key of the cache."""

    captions: bool
    segmentation: bool
    categories: tuple[str, ...] | None
    repair: bool


def coco_file(settings: CocoSettings, split: SplitName) -> CocoFile:
    """The annotations of a split, as the settings want them. Raises `UsageError` for whatever is wrong in the file."""
    path, key = settings.annotations(split), f"{split}_annotations"
    wanted = _Wanted(
        captions=settings.target == "captions",
        segmentation=settings.target == "mask" or settings.masks,
        categories=None if settings.categories is None else tuple(settings.categories),
        repair=settings.faulty == "repair",
    )
    return _read(path, key, stamp(key, path), wanted)


@lru_cache(maxsize=4)
def _read(path: Path, key: str, _stamp: tuple[int, int], wanted: _Wanted) -> CocoFile:
    held = read_json(key, path)
    images = _images(held, path, sizes=not wanted.captions)
    repaired: Counter[str] = Counter()
    if wanted.captions:
        classes: tuple[str, ...] = ()
        filled = _with_captions(held, path, images, wanted, repaired)
    else:
        classes, number_of = _categories(held, path, wanted.categories)
        filled = _with_objects(held, path, images, number_of, wanted, repaired)
    if repaired:
        _LOG.warning("%s: %s", path, ", ".join(f"{count} {what}" for what, count in repaired.items()))
    return CocoFile(classes, tuple(filled), tuple(repaired.items()))


def _images(held: dict[str, Any], path: Path, sizes: bool) -> dict[int, CocoImage]:
    images: dict[int, CocoImage] = {}
    for record in records(held, "images", path):
        number = value(record, "id", int, f"{path}: an image")
        where = f"{path}: image {number}"
        if number in images:
            raise UsageError(f"{where}: is listed twice: give each image its own id")
        size = None
        if sizes or ("height" in record and "width" in record):
            size = value(record, "height", int, where), value(record, "width", int, where)
            if min(size) < 1:
                raise UsageError(f"{where}: is {size[1]}x{size[0]} pixels large, which no picture is: correct the file")
        images[number] = CocoImage(number, value(record, "file_name", str, where), size)
    if not images:
        raise UsageError(f"{path}: lists no image")
    return images


def _categories(
    held: dict[str, Any], path: Path, kept: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[int, int | None]]:
    """The names in order, and for each id its number (None: not kept). Ids may have gaps, as COCO's own have."""
    names: dict[int, str] = {}
    for record in records(held, "categories", path):
        number = value(record, "id", int, f"{path}: a category")
        if number in names:
            raise UsageError(f"{path}: category {number}: is listed twice: give each category its own id")
        names[number] = value(record, "name", str, f"{path}: category {number}")
    if not names:
        raise UsageError(f"{path}: lists no category")
    if kept is None:
        ids = sorted(names)
        return tuple(names[each] for each in ids), {each: place for place, each in enumerate(ids)}
    for name in kept:
        if name not in names.values():
            raise UsageError(f"categories: {path} has no category '{name}'{did_you_mean(name, list(names.values()))}")
    place_of = {name: place for place, name in enumerate(kept)}
    return kept, {each: place_of.get(name) for each, name in names.items()}


def _with_objects(
    held: dict[str, Any],
    path: Path,
    images: dict[int, CocoImage],
    number_of: dict[int, int | None],
    wanted: _Wanted,
    repaired: Counter[str],
) -> list[CocoImage]:
    found: dict[int, list[CocoObject]] = {number: [] for number in images}
    for record, image, where in _annotations(held, path, images):
        category = value(record, "category_id", int, where)
        if category not in number_of:
            raise UsageError(f"{where}: names category {category}, which the file does not list: correct one of them")
        label = number_of[category]
        if label is None:
            continue
        assert image.size is not None
        try:
            made, clipped = object_of(record, where, label, image.size, wanted.segmentation, wanted.repair)
        except FaultyAnnotation as problem:
            if not wanted.repair:
                raise
            repaired[problem.what] += 1
            continue
        if clipped:
            repaired["boxes clipped"] += 1
        found[image.number].append(made)
    return [
        CocoImage(image.number, image.file, image.size, objects=tuple(found[image.number])) for image in images.values()
    ]


def _with_captions(
    held: dict[str, Any], path: Path, images: dict[int, CocoImage], wanted: _Wanted, repaired: Counter[str]
) -> list[CocoImage]:
    found: dict[int, list[str]] = {number: [] for number in images}
    for record, image, where in _annotations(held, path, images):
        text = " ".join(value(record, "caption", str, where).split())
        if any(letter.isalnum() for letter in text):
            found[image.number].append(text)
        elif wanted.repair:
            repaired["captions without words left out"] += 1
        else:
            raise UsageError(
                f"{where}: the caption has no words; write some, or set data.faulty: repair to leave it out"
            )
    kept = []
    for image in images.values():
        if captions := tuple(found[image.number]):
            kept.append(CocoImage(image.number, image.file, image.size, captions=captions))
        elif wanted.repair:
            repaired["images without a caption left out"] += 1
        else:
            raise UsageError(
                f"{path}: image {image.number} ({image.file}) has no caption; write one, or set data.faulty: repair "
                f"to leave it out"
            )
    return kept


def _annotations(
    held: dict[str, Any], path: Path, images: dict[int, CocoImage]
) -> Iterator[tuple[dict[str, Any], CocoImage, str]]:
    """Each annotation, its image, and the words that errors about it begin with."""
    seen: set[int] = set()
    for record in records(held, "annotations", path):
        number = value(record, "id", int, f"{path}: an annotation")
        where = f"{path}: annotation {number}"
        if number in seen:
            raise UsageError(f"{where}: is listed twice: give each annotation its own id")
        seen.add(number)
        image = value(record, "image_id", int, where)
        if image not in images:
            raise UsageError(f"{where}: names image {image}, which the file does not list: correct one of them")
        yield record, images[image], where
