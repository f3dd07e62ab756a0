"""Mean intersection over union, of a split and of an image.

B images, K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from reorder_core import Batch, TaskResult
from reorder_core.interfaces.targets import IGNORED


class SegmentationMetrics:
    """`miou` and `pixel_accuracy` of all known pixels of a split, `loss`, and with `names` the IoU of each class.

    torchmetrics keeps one confusion matrix, and adds it up over processes when it computes.
    """

    def __init__(self, classes: int, names: Sequence[str] = ()) -> None:
        self._names = names
        self._confusion = MulticlassConfusionMatrix(
            classes, ignore_index=IGNORED, validate_args=False, dist_sync_on_step=False
        )
        self._loss = MeanMetric(nan_strategy="disable", dist_sync_on_step=False)

    def to(self, device: torch.device) -> SegmentationMetrics:
        """The same metrics with their sums on `device`."""
        self._confusion.to(device)
        self._loss.to(device)
        return self

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Count the pixels of one batch."""
        self._confusion.update(result.prediction, batch.target)
        self._loss.update(result.loss_B.detach())

    def compute(self) -> Mapping[str, float]:
        """Over all processes: {"miou": …, "pixel_accuracy": …, "loss": …}; a class that is nowhere has no IoU."""
        confusion_KK = self._confusion.compute().double()
        iou_K = iou(confusion_KK)
        found = {
            "miou": float(iou_K.nanmean()),
            "pixel_accuracy": float(confusion_KK.trace() / confusion_KK.sum()),
            "loss": float(self._loss.compute()),
        }
        named = zip(self._names, iou_K.tolist(), strict=False)
        return found | {f"iou_{name}": value for name, value in named if value == value}

    def reset(self) -> None:
        """Forget every batch."""
        self._confusion.reset()
        self._loss.reset()


def iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, [..., K] of [..., K true, K said]; NaN for a class that is nowhere."""
    common = confusion.diagonal(dim1=-2, dim2=-1)
    return common / (confusion.sum(dim=-1) + confusion.sum(dim=-2) - common)


def image_miou_B(predicted_BHW: Tensor, mask_BHW: Tensor, classes: int) -> Tensor:
    """Mean IoU over the classes that are in an image's truth or prediction, float32 [B]; 1 where no pixel is known."""
    B = mask_BHW.shape[0]
    image_B11 = torch.arange(B, device=mask_BHW.device)[:, None, None]
    cell_BHW = (image_B11 * classes + mask_BHW) * classes + predicted_BHW
    counted = torch.bincount(cell_BHW[mask_BHW != IGNORED], minlength=B * classes * classes)
    return iou(counted.reshape(B, classes, classes).float()).nanmean(dim=1).nan_to_num(nan=1.0)
