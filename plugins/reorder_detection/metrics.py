"""COCO's average precision over a split, by torchmetrics and pycocotools, and the mean F1 of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from reorder_core import Batch, TaskResult
from reorder_core.interfaces.targets import Objects
from reorder_detection.detections import Detections
from reorder_detection.score import f1

#: torchmetrics' name → ours.
_NAMES = {
    "map_50": "map50",
    "map": "map",
    "map_75": "map75",
    "map_small": "map_small",
    "map_medium": "map_medium",
    "map_large": "map_large",
    "mar_100": "mar",
}
#: COCO's thresholds in float64. torchmetrics' own are rounded to float32, so that a recall of exactly 0.3 misses 0.3.
_OVERLAPS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
_RECALLS: list[float] = np.linspace(0.0, 1.0, 101).tolist()


class DetectionMetrics:
    """Shares from 0 to 1: see the room's README for the names.

    Average precision is no mean over images, so the images themselves are gathered from all processes, as numbers on
    the CPU. (torchmetrics would gather them box by box, which hangs where processes hold different numbers of images.)
    """

    def __init__(self, most: int, confidence: float) -> None:
        self._most, self._confidence = most, confidence
        self._images: list[tuple[dict[str, Tensor], dict[str, Tensor], float, float]] = []

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Keep one batch."""
        losses = result.loss_B.detach().float().tolist()
        for detections, objects, loss in zip(result.prediction, batch.target, losses, strict=True):
            score = f1(detections.best(self._most).at_least(self._confidence), objects)
            self._images.append((as_said(detections.best(self._most)), as_true(objects), score, loss))

    def compute(self) -> Mapping[str, float]:
        """Over all processes. COCO gives no number for what no image has (large objects, say): it is left out, but
        `map50` is then 0."""
        every = gather_object(self._images)
        found: dict[str, Any] = {}
        if every:
            precision = MeanAveragePrecision(
                iou_thresholds=_OVERLAPS, rec_thresholds=_RECALLS, backend="pycocotools", sync_on_compute=False
            )
            precision.warn_on_many_detections = False
            precision.update([said for said, *_ in every], [true for _, true, *_ in every])
            found = precision.compute()
        numbers = {name: float(found.get(key, -1)) for key, name in _NAMES.items()}
        known = {name: number for name, number in numbers.items() if number >= 0}
        means = torch.tensor([numbers[2:] for numbers in every], dtype=torch.float64).reshape(-1, 2).mean(dim=0)
        return {"map50": 0.0, **known, "f1": float(means[0]), "loss": float(means[1])}

    def reset(self) -> None:
        """Forget every batch."""
        self._images = []


def as_said(detections: Detections) -> dict[str, Tensor]:
    """As torchmetrics wants detections."""
    return {
        "boxes": detections.boxes_O4.detach().float().cpu(),
        "scores": detections.score_O.detach().float().cpu(),
        "labels": detections.label_O.cpu(),
    }


def as_true(objects: Objects) -> dict[str, Tensor]:
    """As torchmetrics wants objects: crowds marked, with their areas (those of the boxes where none are given)."""
    sides_O2 = objects.boxes_O4[:, 2:] - objects.boxes_O4[:, :2]
    area_O = sides_O2.prod(dim=1) if objects.area_O is None else objects.area_O
    crowd_O = torch.zeros_like(objects.label_O) if objects.crowd_O is None else objects.crowd_O.long()
    return {
        "boxes": objects.boxes_O4.float().cpu(),
        "labels": objects.label_O.cpu(),
        "iscrowd": crowd_O.cpu(),
        "area": area_O.float().cpu(),
    }
