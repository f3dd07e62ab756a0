"""The task `segmentation`: the class of each pixel.

B images, C channels, K classes, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from reorder_core import Batch, Context, Draw, Features, Layout, TaskResult, UsageError, seeded
from reorder_segmentation.heads import LinearHead, PyramidHead
from reorder_segmentation.losses import dice_loss_B, pixel_loss_B
from reorder_segmentation.metrics import SegmentationMetrics, image_miou_B
from reorder_segmentation.settings import SegmentationSettings

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


class Segmentation(nn.Module):
    """Tokens are put back on the grid, and a head says the class of each pixel.

    The loss of an image is the mean cross-entropy over its known pixels, and its dice loss where that is wanted; an
    image without a known pixel has loss 0. The prediction is the likeliest class of each pixel, int64 [B, H, W].
    """

    primary = "miou"
    score = "miou of an image"
    higher_is_better = True
    batch_coupled = False
    weight_K: Tensor | None

    def __init__(self, settings: SegmentationSettings, context: Context) -> None:
        super().__init__()
        data = context.data
        if data is None or data.classes is None or data.target != "mask":
            raise UsageError("segmentation needs data with the class of each pixel: set data.target to mask")
        self.settings, self.classes = settings, data.classes
        self.pixels = (data.height, data.width)
        names = tuple(getattr(context.dataset, "classes", ()))
        self.names = names if len(names) == self.classes else tuple(map(str, range(self.classes)))
        self.widths = settings.level_widths or (context.width,)
        side = context.patch // settings.stride
        with seeded(context.generator):
            if settings.head == "linear":
                self.head: nn.Module = LinearHead(self.widths, self.classes, side, settings.dropout)
            else:
                self.head = PyramidHead(self.widths, self.classes, side, settings.dropout, settings.width)
        weights = settings.class_weights
        self.register_buffer("weight_K", None if weights is None else torch.tensor(weights), persistent=False)

    def predict(self, features: Features) -> Tensor:
        """What an exported model answers with: the logits of each pixel, float32 [B, K, H, W]."""
        self._check_levels(features)
        logits_BKhw: Tensor = self.head(features.levels).float()
        if tuple(logits_BKhw.shape[-2:]) == self.pixels:
            return logits_BKhw
        return interpolate(logits_BKhw, self.pixels, mode="bilinear", align_corners=False)

    def _check_levels(self, features: Features) -> None:
        """Raise `UsageError` where the levels are not those of the settings."""
        found = [level.tokens_BND.shape[-1] for level in features.levels]
        if (self.settings.level_widths is None and len(found) > 1) or found[-len(self.widths) :] != list(self.widths):
            raise UsageError(
                f"task.level_widths: the backbone gives levels of widths {found}, and the task reads "
                f"{list(self.widths)}: write level_widths: {found}, or its last few"
            )

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch itself."""
        return batch

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """One pass, head, losses of each image. Raises `UsageError` for masks of another size than the images."""
        images_BCHW, mask_BHW = batch.images_BCHW, batch.target
        if mask_BHW.shape[-2:] != images_BCHW.shape[-2:]:
            height, width = mask_BHW.shape[-2:]
            raise UsageError(f"the data set gives masks of {height}x{width} pixels for images of another size")
        logits_BKHW = self.predict(run(images_BCHW, order))
        with torch.autocast(logits_BKHW.device.type, enabled=False):
            loss_B = pixel_loss_B(logits_BKHW, mask_BHW, self.weight_K)
            if self.settings.dice:
                loss_B = loss_B + self.settings.dice * dice_loss_B(logits_BKHW, mask_BHW)
        return TaskResult(loss_B, logits_BKHW.detach().argmax(dim=1))

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """Mean IoU over the classes in an image's truth or prediction, float32 [B]; 1 where no pixel is known."""
        return image_miou_B(result.prediction, batch.target, self.classes)

    def metrics(self) -> SegmentationMetrics:
        """Fresh: `miou`, `pixel_accuracy`, `loss`, with `per_class` the IoU of each class; on the head's device."""
        names = self.names if self.settings.per_class else ()
        return SegmentationMetrics(self.classes, names).to(next(self.head.parameters()).device)

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 16 images beside their masks, true and predicted; see `picture.draw_masks`."""
        from reorder_segmentation.picture import draw_masks

        draw_masks(batch.images_BCHW, batch.target, result.prediction, self.names, layout, path)
