"""Settings of the task `detection` and of its two heads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from reorder_core import Problem, RunFacts, Settings, uneven_heads

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]

#: What torchvision's layers of FCOS ask of their width: group norms of 32 groups.
GROUPS = 32
#: Strides of the pyramid, in patches: what (transposed) convolutions and pooling by 2 come to.
STRIDES = (0.25, 0.5, 1, 2, 4, 8)


class FcosSettings(Settings):
    """FCOS (Tian et al. 2019) on a simple feature pyramid (Li et al. 2022) of the restored grid."""

    kind: Literal["fcos"] = "fcos"
    """the head"""
    channels: Annotated[int, Field(ge=GROUPS, multiple_of=GROUPS)] = 64
    """width of the pyramid and of the head, a multiple of 32"""
    strides: tuple[float, ...] = (1,)
    """strides of the pyramid's maps, in patches, the finest first: some of 0.25, 0.5, 1, 2, 4, 8"""
    convolutions: Positive = 2
    """convolutions of each of the head's two branches, boxes and classes (published: 4)"""
    radius: Annotated[float, Field(gt=0)] = 1.5
    """a location is asked for an object only within so many strides of the object's centre"""
    nms: Share = 0.6
    """of two detections of a class that overlap more than this (IoU), the better one is kept"""
    least: Share = 0.05
    """detections of a lower score are not given"""

    @field_validator("strides")
    @classmethod
    def _known(cls, strides: tuple[float, ...]) -> tuple[float, ...]:
        if not strides or any(stride not in STRIDES for stride in strides):
            raise ValueError(f"take some of {', '.join(f'{stride:g}' for stride in STRIDES)}, not {list(strides)}")
        if any(fine >= coarse for fine, coarse in pairwise(strides)):
            raise ValueError(f"write each stride once, the finest first, not {list(strides)}")
        return strides


class DetrSettings(Settings):
    """DETR (Carion et al. 2020): queries read the sequence as it is, and each names one object or none.

    By default with what makes it learn in reasonable time; as published: {anchors: false}.
    """

    kind: Literal["detr"]
    """the head"""
    queries: Positive = 20
    """how many objects of an image can be found; more than any image has (published: 100)"""
    layers: Positive = 3
    """decoder layers (published: 6)"""
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """width of the queries, a multiple of 4 (published: 256)"""
    heads: Positive = 4
    """attention heads; the width must divide by them (published: 8)"""
    anchors: bool = True
    """queries are boxes, which each layer looks around and moves (DAB-DETR, Conditional DETR); false: vectors, as
    published"""
    classes: Literal["softmax", "focal"] = "softmax"
    """one of all classes and "no object", as published; or each class judged by itself, with focal loss (Deformable
    DETR)"""
    positions: Literal["place", "slot", "none"] = "place"
    """what is added to the keys: a token's place in the image, its slot in the sequence (so that the decoder sees the
    order), or nothing; anchors look for places in each case"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """dropout in the decoder (published: 0.1)"""
    no_object: Annotated[float, Field(gt=0)] = 0.1
    """softmax only: weight of a query that names no object"""
    box_weight: Weight = 5.0
    """of the boxes' L1 distance, in matching and loss"""
    giou_weight: Weight = 2.0
    """of 1 - GIoU, in matching and loss"""
    auxiliary: Weight = 1.0
    """weight, in training, of the loss of each earlier decoder layer"""


class DetectionSettings(Settings):
    """Boxes, classes and scores of the objects in an image."""

    head: Annotated[FcosSettings | DetrSettings, Field(discriminator="kind")] = FcosSettings()
    """what finds the objects: {kind: fcos}, on the grid, or {kind: detr}, in the sequence as it is read"""
    most: Annotated[int, Field(ge=1, le=100)] = 100
    """how many detections of an image count at most, the best ones"""
    confidence: Share = 0.5
    """detections of this score or more count in an image's F1, and are drawn; average precision counts all"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.data.target != "boxes":
            yield Problem(
                "name",
                f"detection needs boxes, and this data has '{facts.data.target}': "
                f"set data.target to boxes, or choose data that has them",
            )
        elif not facts.data.classes:
            yield Problem("name", "the data does not say how many classes of objects it has")
        if facts.grid.frames > 1:
            yield Problem("name", f"detection reads single images, not {facts.grid.frames} frames")
        if isinstance(self.head, DetrSettings):
            if said := uneven_heads(self.head.width, self.head.heads):
                yield Problem("head.heads", said)
            # by value: the recipe that is saved with a run spells out every default
            if self.head.classes == "focal" and self.head.no_object != DetrSettings.model_fields["no_object"].default:
                yield Problem("head.no_object", "only classes: softmax has a class 'no object': leave it out")
