"""The F1 of one image's detections, by which images are compared.

O objects, D detections.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from reorder_core.interfaces.targets import Objects
from reorder_detection.detections import Detections

_OVERLAP = 0.5


def f1(detections: Detections, objects: Objects) -> float:
    """2 · right / (detections + objects) of one image, from 0 to 1, and 1 where there are neither.

    Detections take objects in the order of their scores: each the free one of its class that it overlaps most, by an
    IoU of 0.5 at least, as in COCO's evaluation; then it is right. One that takes none but lies in a crowd of its class
    (half of its area or more) is neither right nor wrong.
    """
    crowd_O = torch.zeros_like(objects.label_O, dtype=torch.bool) if objects.crowd_O is None else objects.crowd_O
    same_DO = detections.label_O[:, None].cpu() == objects.label_O.cpu()
    boxes_D4, boxes_O4, crowd_O = detections.boxes_O4.float().cpu(), objects.boxes_O4.float().cpu(), crowd_O.cpu()
    iou_DO = torch.where(same_DO & ~crowd_O, box_iou(boxes_D4, boxes_O4), 0.0)
    excused_D = ((inside_DO(boxes_D4, boxes_O4) >= _OVERLAP) & same_DO & crowd_O).any(dim=1).tolist()
    right, wrong = 0, 0
    for number in detections.score_O.cpu().argsort(descending=True, stable=True).tolist():
        overlap, taken = iou_DO[number].max(dim=0) if len(objects) else (torch.zeros(()), torch.zeros(()))
        if overlap >= _OVERLAP:
            right += 1
            iou_DO[:, taken] = 0
        else:
            wrong += not excused_D[number]
    missed = int((~crowd_O).sum()) - right
    return 2 * right / (2 * right + wrong + missed) if right + wrong + missed else 1.0


def inside_DO(boxes_D4: Tensor, boxes_O4: Tensor) -> Tensor:
    """Which share of each detection's area lies in each of the other boxes."""
    corner_DO2 = torch.minimum(boxes_D4[:, None, 2:], boxes_O4[:, 2:]) - torch.maximum(
        boxes_D4[:, None, :2], boxes_O4[:, :2]
    )
    share_DO: Tensor = corner_DO2.clamp(min=0).prod(dim=2) / box_area(boxes_D4)[:, None].clamp(min=1e-9)
    return share_DO
