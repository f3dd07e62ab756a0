"""DETR's matching of queries with objects, and its loss of each image (Carion et al. 2020, arXiv 2005.12872, 3.1).

B images, Q queries, M objects of an image (padded), K classes, C logits of a query, P pairs. With `classes: softmax`
C = K + 1, and the last is "no object"; with `focal` each class is judged by itself (Zhu et al. 2021, arXiv 2010.04159).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.ops import box_convert, generalized_box_iou_loss, sigmoid_focal_loss

from reorder_detection.detections import Wanted
from reorder_detection.settings import DetrSettings

#: Of focal loss, as published, and its weight beside the boxes' losses in matching and loss, as Deformable DETR has it.
_ALPHA, _GAMMA, _FOCAL_WEIGHT = 0.25, 2.0, 2.0


@dataclass(frozen=True, slots=True)
class Said:
    """What the queries say, float32. logits_BQC: of the classes. boxes_BQ4: (centre across, centre down, width, height)
    as shares of the image."""

    logits_BQC: Tensor
    boxes_BQ4: Tensor


class Pairs(NamedTuple):
    """P pairs of the whole batch, int64 each: image, query and object."""

    image_P: Tensor
    query_P: Tensor
    object_P: Tensor


@torch.no_grad()
def match(said: Said, targets: Wanted, boxes_BM4: Tensor, settings: DetrSettings) -> Pairs:
    """The queries and the objects that belong together: of each image the pairs of least total cost.

    The cost of a pair is that of the object's class (`_class_cost_BQC`) and the weighted distances of the boxes.
    boxes_BM4: of the objects, in the form of `Said`.
    """
    queries, objects = said.boxes_BQ4.shape[1], boxes_BM4.shape[1]
    one_BQM4 = said.boxes_BQ4[:, :, None].expand(-1, -1, objects, -1)
    two_BQM4 = boxes_BM4[:, None].expand(-1, queries, -1, -1)
    apart_BQM = (one_BQM4 - two_BQM4).abs().sum(dim=3)
    disjoint_BQM = generalized_box_iou_loss(_corners(one_BQM4), _corners(two_BQM4))
    label_BQM = targets.label_BM[:, None].expand(-1, queries, -1)
    class_BQM = _class_cost_BQC(said.logits_BQC, settings).gather(2, label_BQM)
    cost_BQM = settings.box_weight * apart_BQM + settings.giou_weight * disjoint_BQM + class_BQM
    every = cost_BQM.nan_to_num(1e6).cpu().numpy()
    counts = targets.there_BM.sum(dim=1).tolist()
    found = [linear_sum_assignment(cost_QM[:, :count]) for cost_QM, count in zip(every, counts, strict=True)]
    image_P = torch.tensor([image for image, (query, _) in enumerate(found) for _ in query], dtype=torch.int64)
    pairs_P = (torch.from_numpy(np.concatenate(each)) for each in zip(*found, strict=True))
    return Pairs(*(each.to(cost_BQM.device) for each in (image_P, *pairs_P)))


def loss_B(said: Said, targets: Wanted, boxes_BM4: Tensor, settings: DetrSettings) -> Tensor:
    """The classes' loss, L1 and 1 - GIoU of the matched boxes, of each image, [B].

    Cross-entropy is a mean over the image's queries; focal loss and the boxes' losses are divided by the image's number
    of objects (1 where there are none). Published, all are normalised over the batch.
    """
    pairs = image_P, query_P, object_P = match(said, targets, boxes_BM4, settings)
    objects_B = targets.there_BM.sum(dim=1).clamp(min=1)
    label_P = targets.label_BM[image_P, object_P]
    if settings.classes == "focal":
        classes_B = _focal_B(said.logits_BQC, pairs, label_P) / objects_B
    else:
        classes_B = _entropy_B(said.logits_BQC, pairs, label_P, settings.no_object)

    said_P4, true_P4 = said.boxes_BQ4[image_P, query_P], boxes_BM4[image_P, object_P]
    giou_P = generalized_box_iou_loss(_corners(said_P4), _corners(true_P4))
    boxes_P = settings.box_weight * (said_P4 - true_P4).abs().sum(dim=1) + settings.giou_weight * giou_P
    boxes_B = torch.zeros_like(classes_B).index_add(0, image_P, boxes_P)
    loss: Tensor = classes_B + boxes_B / objects_B
    return loss


def scores_BQK(said: Said, settings: DetrSettings) -> Tensor:
    """The probability of each class of each query."""
    if settings.classes == "focal":
        return said.logits_BQC.sigmoid()
    return said.logits_BQC.softmax(dim=2)[..., :-1]


def _class_cost_BQC(logits_BQC: Tensor, settings: DetrSettings) -> Tensor:
    """What it costs a query to be given an object of each class: minus its probability, or by how much the focal loss
    would be larger than without the object."""
    if settings.classes == "softmax":
        return -logits_BQC.softmax(dim=2)
    with_it, without = torch.ones_like(logits_BQC), torch.zeros_like(logits_BQC)
    loss: Tensor = _focal(logits_BQC, with_it) - _focal(logits_BQC, without)
    return loss


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    loss: Tensor = _FOCAL_WEIGHT * sigmoid_focal_loss(logits, wanted, _ALPHA, _GAMMA)
    return loss


def _focal_B(logits_BQC: Tensor, pairs: Pairs, label_P: Tensor) -> Tensor:
    """Summed over an image's queries and classes."""
    wanted_BQC = torch.zeros_like(logits_BQC)
    wanted_BQC[pairs.image_P, pairs.query_P, label_P] = 1
    return _focal(logits_BQC, wanted_BQC).sum(dim=(1, 2))


def _entropy_B(logits_BQC: Tensor, pairs: Pairs, label_P: Tensor, no_object: float) -> Tensor:
    """A mean over an image's queries, in which one that names no object weighs `no_object`."""
    nothing = logits_BQC.shape[2] - 1
    label_BQ = torch.full(logits_BQC.shape[:2], nothing, device=logits_BQC.device)
    label_BQ[pairs.image_P, pairs.query_P] = label_P
    weight_BQ = torch.where(label_BQ == nothing, no_object, 1.0)
    entropy_BQ = cross_entropy(logits_BQC.transpose(1, 2), label_BQ, reduction="none")
    return (weight_BQ * entropy_BQ).sum(dim=1) / weight_BQ.sum(dim=1)


def _corners(boxes: Tensor) -> Tensor:
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners
