"""One object of a COCO file: its box inside the image, its outline checked. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeGuard

from reorder_annotated_data.text_files import value
from reorder_core import UsageError

#: Boxes in the field's own files stick out by fractions of a pixel: rounding, not a fault.
ROUNDING = 1.0


class FaultyAnnotation(UsageError):
    """A box or an outline that cannot be used; `what` counts it where such ones are left out."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True, slots=True)
class CocoObject:
    """label: from 0. box: (left, top, right, bottom) in pixels. area: COCO's own, of the outline, where it is given.

    segmentation: polygons or run lengths as in the file, where they were asked for.
    """

    number: int
    label: int
    box: tuple[float, float, float, float]
    crowd: bool
    area: float | None
    segmentation: Any = None


def object_of(
    record: dict[str, Any], where: str, label: int, size: tuple[int, int], segmentation: bool, repair: bool
) -> tuple[CocoObject, bool]:
    """The object, and whether its box had to be clipped. size: (height, width) of its image.

    Raises `FaultyAnnotation` for a box of no area (inside the image), for an outline that is none, and, where nothing
    is to be repaired, for a box outside the image.
    """
    left, top, width, height = _box(record, where)
    right, bottom = left + width, top + height
    if width <= 0 or height <= 0:
        raise FaultyAnnotation(
            f"{where}: the box {_told(record)} has no area; correct it, or set data.faulty: repair to leave it out",
            "boxes of no area left out",
        )
    outside = max(-left, -top, right - size[1], bottom - size[0]) > ROUNDING
    if outside and not repair:
        raise FaultyAnnotation(
            f"{where}: the box {_told(record)} is outside its image of {size[1]}x{size[0]} pixels; correct it, or set "
            f"data.faulty: repair to clip it",
            "boxes outside left out",
        )
    box = max(left, 0.0), max(top, 0.0), min(right, float(size[1])), min(bottom, float(size[0]))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise FaultyAnnotation(
            f"{where}: the box {_told(record)} has no area inside its image of {size[1]}x{size[0]} pixels; correct it, "
            f"or set data.faulty: repair to leave it out",
            "boxes of no area left out",
        )
    area, crowd = record.get("area"), record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise UsageError(f"{where}: 'iscrowd' is {crowd!r:.40} and neither 0 nor 1: correct the file")
    made = CocoObject(
        number=record["id"],
        label=label,
        box=box,
        crowd=bool(crowd),
        area=float(area) if _is_number(area) and area > 0 else None,
        segmentation=_outline(record, where, size) if segmentation else None,
    )
    return made, outside


def _box(record: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    given = value(record, "bbox", list, where)
    if len(given) != 4 or not all(map(_is_number, given)):
        raise UsageError(f"{where}: 'bbox' is {given!r:.60} and not [left, top, width, height]: correct the file")
    left, top, width, height = map(float, given)
    return left, top, width, height


def _is_number(given: Any) -> TypeGuard[float]:
    """A finite number that a float can hold."""
    try:
        return isinstance(given, int | float) and not isinstance(given, bool) and isfinite(given)
    except OverflowError:
        return False


def _told(record: dict[str, Any]) -> str:
    return str(record["bbox"]) + " (left, top, width, height)"


def _outline(record: dict[str, Any], where: str, size: tuple[int, int]) -> Any:
    """Polygons, or run lengths {size, counts}, as pycocotools reads them."""
    given = record.get("segmentation")
    if isinstance(given, dict):
        if given.get("size") != list(size):
            raise UsageError(
                f"{where}: its mask is of (height, width) {given.get('size')} and its image of {list(size)}: "
                f"correct the file"
            )
        counts = given.get("counts")
        if not isinstance(counts, str | list) or not counts:
            raise UsageError(f"{where}: its mask has no 'counts': correct the file")
        if isinstance(counts, list) and not _cover(counts, size[0] * size[1]):
            raise UsageError(
                f"{where}: the 'counts' of its mask are no run lengths of {size[0]}x{size[1]} pixels: correct the file"
            )
        return given
    fitting = isinstance(given, list) and all(
        isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and all(map(_is_number, part))
        for part in given
    )
    if not fitting or not given:
        raise FaultyAnnotation(
            f"{where}: 'segmentation' is no outline (polygons of three points or more, or run lengths); correct it, or "
            f"set data.faulty: repair to leave the object out",
            "objects without an outline left out",
        )
    return given


def _cover(counts: list[Any], pixels: int) -> bool:
    """Whether run lengths are whole numbers that add up to the pixels of the image."""
    return all(isinstance(each, int) and each >= 0 for each in counts) and sum(counts) == pixels
