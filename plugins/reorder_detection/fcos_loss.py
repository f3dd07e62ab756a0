"""What FCOS is asked at each location, and its loss of each image (Tian et al. 2019, arXiv 1904.01355).

B images, L locations of all maps, M objects of an image (padded), K classes, P positive locations of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from reorder_detection.detections import Wanted


@dataclass(frozen=True, slots=True)
class Locations:
    """Where predictions are made: centre_L2 (across, down) and stride_L in pixels, lengths: cells of each map."""

    centre_L2: Tensor
    stride_L: Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """What the head says at each location, float32.

    logits_BLK: of the classes. distances_BL4: to the left, upper, right and lower side of the object's box, in strides,
    never negative. centredness_BL: a logit.
    """

    logits_BLK: Tensor
    distances_BL4: Tensor
    centredness_BL: Tensor
    locations: Locations

    def boxes_BL4(self) -> Tensor:
        """The boxes (left, top, right, bottom) in pixels; they may reach beyond the image."""
        centre_L2, stride_L1 = self.locations.centre_L2, self.locations.stride_L[:, None]
        before_BL2, after_BL2 = (self.distances_BL4 * stride_L1).chunk(2, dim=2)
        return torch.cat([centre_L2 - before_BL2, centre_L2 + after_BL2], dim=2)


def sides_BLM4(centre_L2: Tensor, boxes_BM4: Tensor) -> Tensor:
    """How far each side of each box is from each location, in pixels; negative where the location is outside."""
    before = centre_L2[None, :, None] - boxes_BM4[:, None, :, :2]
    after = boxes_BM4[:, None, :, 2:] - centre_L2[None, :, None]
    return torch.cat([before, after], dim=3)


def assign_BL(locations: Locations, boxes_BM4: Tensor, radius: float) -> Tensor:
    """The number of the object that each location is asked for, int64 [B, L]; -1 where for none.

    A location is asked for an object where it lies inside of its box and within `radius` strides of its centre, and
    where the box's furthest side is between 4 and 8 strides away (on the first map from 0, on the last without end); of
    several objects, for the smallest. As torchvision's FCOS. Boxes of no area hold no location.
    """
    if boxes_BM4.shape[1] == 0:
        return boxes_BM4.new_full((boxes_BM4.shape[0], locations.centre_L2.shape[0]), -1, dtype=torch.int64)
    stride_L1 = locations.stride_L[:, None]
    sides = sides_BLM4(locations.centre_L2, boxes_BM4)
    centre_BM2 = (boxes_BM4[..., :2] + boxes_BM4[..., 2:]) / 2
    apart_BLM = (locations.centre_L2[None, :, None] - centre_BM2[:, None]).abs().amax(dim=3)
    least_L, most_L = 4 * locations.stride_L, 8 * locations.stride_L
    least_L[: locations.lengths[0]] = 0
    most_L[-locations.lengths[-1] :] = torch.inf
    furthest_BLM = sides.amax(dim=3)
    asked_BLM = (apart_BLM < radius * stride_L1) & (sides.amin(dim=3) > 0)
    asked_BLM &= (furthest_BLM > least_L[:, None]) & (furthest_BLM < most_L[:, None])
    area_BM = (boxes_BM4[..., 2:] - boxes_BM4[..., :2]).prod(dim=2)
    smallest_BL, which_BL = area_BM[:, None].where(asked_BLM, torch.inf).min(dim=2)
    return which_BL.masked_fill(smallest_BL.isinf(), -1)


def parts_B3(fields: Fields, targets: Wanted, radius: float) -> Tensor:
    """Focal loss of the classes, GIoU loss of the boxes, cross-entropy of the centredness, of each image, [B, 3].

    Each is a sum over the image's locations, divided by its number of positive ones (1 where there are none): the loss
    of an image is its own, whatever else is in the batch. Negative locations inside of a crowd count nowhere.
    """
    locations = fields.locations
    which_BL = assign_BL(locations, targets.boxes_BM4, radius)
    positive_BL = which_BL >= 0
    classes_BLK = torch.zeros_like(fields.logits_BLK)
    image_P, place_P = positive_BL.nonzero(as_tuple=True)
    object_P = which_BL[image_P, place_P]
    label_P = targets.label_BM[image_P, object_P]
    classes_BLK[image_P, place_P] = one_hot(label_P, fields.logits_BLK.shape[2]).to(classes_BLK)
    focal_BL = sigmoid_focal_loss(fields.logits_BLK, classes_BLK).sum(dim=2)
    in_crowd_BL = (sides_BLM4(locations.centre_L2, targets.crowds_BM4).amin(dim=3) > 0).any(dim=2)
    focal_B = focal_BL.masked_fill(in_crowd_BL & ~positive_BL, 0).sum(dim=1)

    box_P4 = targets.boxes_BM4[image_P, object_P]
    giou_P = generalized_box_iou_loss(fields.boxes_BL4()[image_P, place_P], box_P4)
    centred_P = centredness_P(locations.centre_L2[place_P], box_P4)
    said_P = fields.centredness_BL[image_P, place_P]
    centring_P = binary_cross_entropy_with_logits(said_P, centred_P, reduction="none")
    sums = [focal_B, *(torch.zeros_like(focal_B).index_add(0, image_P, loss_P) for loss_P in (giou_P, centring_P))]
    return torch.stack(sums, dim=1) / positive_BL.sum(dim=1).clamp(min=1)[:, None]


def centredness_P(centre_P2: Tensor, box_P4: Tensor) -> Tensor:
    """1 in the middle of a box, 0 on its sides (equation 3)."""
    before_P2, after_P2 = centre_P2 - box_P4[:, :2], box_P4[:, 2:] - centre_P2
    return (torch.minimum(before_P2, after_P2) / torch.maximum(before_P2, after_P2)).prod(dim=1).sqrt()
