"""DETR's matching of queries with objects, and its loss of each image (Carion et al. 2020, arXiv 2005.12872, 3.1).

B images, Q queries, M objects of an image (padded), K classes, P pairs; the class K is "no object".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.ops import box_convert, generalized_box_iou_loss

from reorder_detection.detections import Wanted
from reorder_detection.settings import DetrSettings


@dataclass(frozen=True, slots=True)
class Said:
    """What the queries say, float32. logits_BQK1: of the classes and of "no object". boxes_BQ4: (centre across, centre
    down, width, height) as shares of the image."""

    logits_BQK1: Tensor
    boxes_BQ4: Tensor


class Pairs(NamedTuple):
    """P pairs of the whole batch, int64 each: image, query and object."""

    image_P: Tensor
    query_P: Tensor
    object_P: Tensor


@torch.no_grad()
def match(said: Said, targets: Wanted, boxes_BM4: Tensor, settings: DetrSettings) -> Pairs:
    """The queries and the objects that belong together: of each image the pairs of least total cost.

    The cost of a pair is minus the probability of the object's class, and the weighted distances of the boxes.
    boxes_BM4: of the objects, in the form of `Said`.
    """
    queries, objects = said.boxes_BQ4.shape[1], boxes_BM4.shape[1]
    one_BQM4 = said.boxes_BQ4[:, :, None].expand(-1, -1, objects, -1)
    two_BQM4 = boxes_BM4[:, None].expand(-1, queries, -1, -1)
    apart_BQM = (one_BQM4 - two_BQM4).abs().sum(dim=3)
    disjoint_BQM = generalized_box_iou_loss(_corners(one_BQM4), _corners(two_BQM4))
    label_BQM = targets.label_BM[:, None].expand(-1, queries, -1)
    probability_BQM = said.logits_BQK1.softmax(dim=2).gather(2, label_BQM)
    cost_BQM = settings.box_weight * apart_BQM + settings.giou_weight * disjoint_BQM - probability_BQM
    every = cost_BQM.nan_to_num(1e6).cpu().numpy()
    counts = targets.there_BM.sum(dim=1).tolist()
    found = [linear_sum_assignment(cost_QM[:, :count]) for cost_QM, count in zip(every, counts, strict=True)]
    image_P = torch.tensor([image for image, (query, _) in enumerate(found) for _ in query], dtype=torch.int64)
    pairs_P = (torch.from_numpy(np.concatenate(each)) for each in zip(*found, strict=True))
    return Pairs(*(each.to(cost_BQM.device) for each in (image_P, *pairs_P)))


def loss_B(said: Said, targets: Wanted, boxes_BM4: Tensor, settings: DetrSettings) -> Tensor:
    """Cross-entropy of the classes, L1 and 1 - GIoU of the matched boxes, of each image, [B].

    The cross-entropy is a mean over the image's queries, in which one that names no object weighs `no_object`; the
    boxes' losses are divided by the image's number of objects (1 where there are none). Published, both are normalised
    over the batch.
    """
    images, queries, classes = said.logits_BQK1.shape
    image_P, query_P, object_P = match(said, targets, boxes_BM4, settings)
    label_BQ = torch.full((images, queries), classes - 1, device=said.logits_BQK1.device)
    label_BQ[image_P, query_P] = targets.label_BM[image_P, object_P]
    weight_BQ = torch.where(label_BQ == classes - 1, settings.no_object, 1.0)
    entropy_BQ = cross_entropy(said.logits_BQK1.transpose(1, 2), label_BQ, reduction="none")
    entropy_B = (weight_BQ * entropy_BQ).sum(dim=1) / weight_BQ.sum(dim=1)

    said_P4, true_P4 = said.boxes_BQ4[image_P, query_P], boxes_BM4[image_P, object_P]
    giou_P = generalized_box_iou_loss(_corners(said_P4), _corners(true_P4))
    boxes_P = settings.box_weight * (said_P4 - true_P4).abs().sum(dim=1) + settings.giou_weight * giou_P
    boxes_B = torch.zeros_like(entropy_B).index_add(0, image_P, boxes_P)
    loss: Tensor = entropy_B + boxes_B / targets.there_BM.sum(dim=1).clamp(min=1)
    return loss


def _corners(boxes: Tensor) -> Tensor:
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners
