"""DETR's matching of queries with objects, and its loss of each image (Carion et al. 2020, arXiv 2005.12872, 3.1).

B images, Q queries, M objects of an image (padded), K classes; the class K is "no object".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

from reorder_detection.detections import Wanted
from reorder_detection.settings import DetrSettings


@dataclass(frozen=True, slots=True)
class Said:
    """What the queries say, float32. logits_BQK1: of the classes and of "no object". boxes_BQ4: (centre across, centre
    down, width, height) as shares of the image."""

    logits_BQK1: Tensor
    boxes_BQ4: Tensor


@torch.no_grad()
def match(said: Said, targets: Wanted, boxes_BM4: Tensor, settings: DetrSettings) -> list[tuple[Tensor, Tensor]]:
    """For each image the queries and the objects that belong together, int64 each: the pairs of least total cost.

    The cost of a pair is minus the probability of the object's class, and the weighted distances of the boxes.
    boxes_BM4: of the objects, in the form of `Said`.
    """
    probability_BQK1 = said.logits_BQK1.softmax(dim=2)
    pairs = []
    for image, count in enumerate(targets.there_BM.sum(dim=1).tolist()):
        boxes_O4, boxes_Q4 = boxes_BM4[image, :count], said.boxes_BQ4[image]
        apart_QO = (boxes_Q4[:, None] - boxes_O4).abs().sum(dim=2)
        giou_QO = generalized_box_iou(_corners(boxes_Q4), _corners(boxes_O4))
        cost_QO = settings.box_weight * apart_QO - settings.giou_weight * giou_QO
        cost_QO = cost_QO - probability_BQK1[image][:, targets.label_BM[image, :count]]
        found = linear_sum_assignment(cost_QO.nan_to_num(1e6).cpu().numpy())
        pairs.append(tuple(torch.as_tensor(each, device=cost_QO.device) for each in found))
    return pairs  # type: ignore[return-value]


def loss_B(said: Said, targets: Wanted, boxes_BM4: Tensor, settings: DetrSettings) -> Tensor:
    """Cross-entropy of the classes, L1 and 1 - GIoU of the matched boxes, of each image, [B].

    The cross-entropy is a mean over the image's queries, in which one that names no object weighs `no_object`; the
    boxes' losses are divided by the image's number of objects (1 where there are none). Published, both are normalised
    over the batch.
    """
    images, queries, classes = said.logits_BQK1.shape
    pairs = match(said, targets, boxes_BM4, settings)
    image_P = torch.cat([torch.full_like(query, image) for image, (query, _) in enumerate(pairs)])
    query_P, object_P = (torch.cat(each) for each in zip(*pairs, strict=True))
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
