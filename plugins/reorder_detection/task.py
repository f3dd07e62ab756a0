"""The task `detection`: boxes, classes and scores of the objects in an image.

B images, D width, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from reorder_core import Batch, Context, Draw, Features, Layout, TaskResult, UsageError
from reorder_detection.detections import Decoded, wanted
from reorder_detection.detr import DetrHead
from reorder_detection.fcos import FcosHead
from reorder_detection.metrics import DetectionMetrics
from reorder_detection.score import f1
from reorder_detection.settings import DetectionSettings, DetrSettings

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


class Detection(nn.Module):
    """One pass, and a head: FCOS on the grid (`fcos.py`), or DETR on the sequence as it is (`detr.py`).

    Targets are `Objects`, one an image. The prediction is a sequence of `Detections`, one an image, made when it is
    asked for. The loss of an image is normalised by its own objects, so it is a reward of that image alone.
    Instance masks are not predicted; the task `segmentation` has classes of pixels.
    """

    primary = "map50"
    higher_is_better = True
    batch_coupled = False
    score = "f1 at IoU 0.5"

    def __init__(self, settings: DetectionSettings, context: Context) -> None:
        super().__init__()
        if context.data is None or not context.data.classes or context.data.target != "boxes":
            raise UsageError(
                "detection needs data with boxes, and with its number of classes: set data.target to boxes"
            )
        self.settings = settings
        self.classes = context.data.classes
        self.names: tuple[str, ...] = tuple(getattr(context.dataset, "classes", ()))
        head = settings.head
        self.head: Any = (
            DetrHead(head, context, self.classes)
            if isinstance(head, DetrSettings)
            else FcosHead(head, context, self.classes)
        )

    def refuse_model(self, model: Any) -> None:
        """Raise `UsageError` where the head cannot work with the grids of this model's levels."""
        self.head.refuse_grids(getattr(model.backbone, "grids", (model.grid,)))

    def predict(self, features: Features) -> Tensor:
        """What an exported model answers with, before anything is suppressed: float32 [B, L, 4 + K], for each location
        or query the box (left, top, right, bottom) in pixels and the score of each class."""
        table: Tensor = self.head.table(self.head(features))
        return table

    def prepare(self, batch: Batch, generator: Any) -> Batch:
        """The batch itself: data sets move boxes together with the pixels."""
        return batch

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """One pass, head, the loss of each image."""
        said = self.head(run(batch.images_BCHW, order))
        targets = wanted(batch.target, batch.images_BCHW.device, self.classes)
        loss_B = self.head.loss_B(said, targets)
        return TaskResult(loss_B, Decoded(len(batch), lambda: self.head.decode(said)))

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """The F1 of each image's detections of enough confidence at an IoU of 0.5 (`score.f1`), float32 [B]."""
        pairs = zip(result.prediction, batch.target, strict=True)
        most, least = self.settings.most, self.settings.confidence
        return result.loss_B.new_tensor([f1(said.best(most).at_least(least), true) for said, true in pairs])

    def metrics(self) -> DetectionMetrics:
        """Fresh: `map50`, `map`, `map75`, by size where there are such objects, `mar`, `f1`, `loss`."""
        return DetectionMetrics(self.settings.most, self.settings.confidence)

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 16 images with their boxes; see `picture.draw_detections`."""
        from reorder_detection.picture import draw_detections

        sure = [said.at_least(self.settings.confidence) for said in result.prediction]
        draw_detections(batch.images_BCHW, batch.target, sure, self.names, layout, path)
