"""What `interfaces/targets.py` promises of each type of target. B images, O objects, K classes, H W pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reorder_core.conformance.building import require
from reorder_core.interfaces.targets import IGNORED, Objects, Question
from reorder_core.settings import DataFacts


def check_targets(target: Any, facts: DataFacts, images: int, name: str) -> None:
    """Targets of a batch are of the type that `facts.target` names; a type that is not among ours is not looked at."""
    check = {
        "class": _check_class,
        "classes": _check_classes,
        "mask": _check_mask,
        "boxes": _check_boxes,
        "captions": _check_captions,
        "questions": _check_questions,
    }.get(facts.target)
    if check is not None:
        check(target, facts, images, name)


def same_target(one: Any, other: Any) -> bool:
    """Whether two targets of an image are equal: tensors by value."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Objects):
        fields = ("boxes_O4", "label_O", "masks_OHW", "crowd_O", "area_O", "name")
        return isinstance(other, Objects) and all(
            same_target(getattr(one, field), getattr(other, field)) for field in fields
        )
    return bool(one == other)


def _known_classes(facts: DataFacts) -> int:
    require(facts.classes is not None, f"a data set with the target '{facts.target}' must say how many classes")
    return facts.classes or 0


def _check_class(target_B: Any, facts: DataFacts, images: int, name: str) -> None:
    classes = _known_classes(facts)
    require(target_B.dtype == torch.int64 and target_B.shape == (images,), f"{name}: target must be int64 [B]")
    require(
        int(target_B.min()) >= 0 and int(target_B.max()) < classes, f"{name}: targets must be from 0 to {classes - 1}"
    )


def _check_classes(target_BK: Any, facts: DataFacts, images: int, name: str) -> None:
    shape = (images, _known_classes(facts))
    require(target_BK.dtype == torch.float32 and target_BK.shape == shape, f"{name}: target must be float32 {shape}")
    require(bool(((target_BK == 0) | (target_BK == 1) | target_BK.isnan()).all()), f"{name}: a class is there or not")


def _check_mask(target_BHW: Any, facts: DataFacts, images: int, name: str) -> None:
    shape = (images, facts.height, facts.width)
    require(target_BHW.dtype == torch.int64 and target_BHW.shape == shape, f"{name}: target must be int64 {shape}")
    known = target_BHW[target_BHW != IGNORED]
    inside = not known.numel() or (int(known.min()) >= 0 and int(known.max()) < _known_classes(facts))
    require(inside, f"{name}: pixels must be 0 to {_known_classes(facts) - 1}, or {IGNORED} where nothing is known")


def _check_boxes(target: Any, facts: DataFacts, images: int, name: str) -> None:
    require(isinstance(target, list) and len(target) == images, f"{name}: target must be a list of {images} Objects")
    for item in target:
        require(isinstance(item, Objects), f"{name}: an item must be Objects, not {type(item).__name__}")
        objects, boxes_O4 = len(item), item.boxes_O4
        require(item.label_O.dtype == torch.int64, f"{name}: label_O must be int64")
        require(
            boxes_O4.dtype == torch.float32 and boxes_O4.shape == (objects, 4),
            f"{name}: boxes_O4 must be float32 [O, 4]",
        )
        left, top, right, bottom = boxes_O4.unbind(1)
        inside = (left >= 0) & (top >= 0) & (left < right) & (top < bottom)
        inside = inside & (right <= facts.width) & (bottom <= facts.height)
        require(bool(inside.all()), f"{name}: boxes must lie inside of the image and have an area ({item.name})")
        if objects:
            fits = int(item.label_O.min()) >= 0 and int(item.label_O.max()) < _known_classes(facts)
            require(fits, f"{name}: labels must be 0 to {_known_classes(facts) - 1} ({item.name})")
        if item.masks_OHW is not None:
            shape = (objects, facts.height, facts.width)
            right_kind = item.masks_OHW.dtype == torch.bool and item.masks_OHW.shape == shape
            require(right_kind, f"{name}: masks_OHW must be bool {shape} ({item.name})")
        if item.crowd_O is not None:
            require(
                item.crowd_O.dtype == torch.bool and item.crowd_O.shape == (objects,),
                f"{name}: crowd_O must be bool [O]",
            )


def _check_captions(target: Any, facts: DataFacts, images: int, name: str) -> None:
    require(isinstance(target, list) and len(target) == images, f"{name}: target must be a list of {images} captions")
    for texts in target:
        require(isinstance(texts, tuple) and texts, f"{name}: an item must be a tuple of at least one text")
        require(all(isinstance(text, str) and text.split() for text in texts), f"{name}: a caption must have words")


def _check_questions(target: Any, facts: DataFacts, images: int, name: str) -> None:
    require(isinstance(target, list) and len(target) == images, f"{name}: target must be a list of {images} questions")
    for item in target:
        require(isinstance(item, Question), f"{name}: an item must be a Question, not {type(item).__name__}")
        require(
            bool(item.text.split()) and bool(item.answers), f"{name}: a question has words and answers ({item.name})"
        )
