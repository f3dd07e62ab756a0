"""Settings of the task `segmentation`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings
from reorder_core.interfaces.targets import IGNORED

Positive = Annotated[int, Field(ge=1)]


class SegmentationSettings(Settings):
    """A head on the restored grid, and how it is trained."""

    head: Literal["linear", "pyramid"] = "linear"
    """`linear`: each token says its own pixels, and nothing passes between patches but what the backbone did;
    `pyramid`: convolutions and transposed convolutions on the grid, from patches to pixels"""
    width: Positive = 64
    """channels of the pyramid on the patch grid; they are halved at each finer step, down to 16"""
    stride: Positive = 1
    """pixels between two predictions, bilinear in between; it must divide the patch side (4 saves memory)"""
    level_widths: tuple[Positive, ...] | None = None
    """widths of the backbone's last levels that are read, finest first (a hierarchy's `widths`); left out: the backbone
    has one level"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of the features that are dropped before the last layer in training"""
    class_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """weight of a pixel of each class in the cross-entropy; left out: all the same"""
    dice: float = Field(default=0.0, ge=0)
    """weight of the dice loss of an image beside its cross-entropy (Milletari et al. 2016)"""
    per_class: bool = False
    """report the IoU of each class as well, as `iou_NAME`"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        classes = facts.data.classes
        if facts.data.target != "mask":
            yield Problem(
                "name",
                f"segmentation needs the class of each pixel, and this data has '{facts.data.target}': set data.target "
                f"to mask where the data set has it",
            )
        elif classes is None or not 2 <= classes <= IGNORED:
            yield Problem(
                "name",
                f"segmentation needs 2 to {IGNORED} classes ({IGNORED} marks unknown pixels), and this data has "
                f"{'an unknown number' if classes is None else classes}",
            )
        elif self.class_weights is not None and len(self.class_weights) != classes:
            yield Problem("class_weights", f"give one weight for each of the {classes} classes")
        if facts.patch % self.stride:
            yield Problem("stride", f"{self.stride} does not divide the patch of {facts.patch} pixels")
        if facts.grid.frames > 1:
            yield Problem("name", "segmentation reads single images, not frames")
