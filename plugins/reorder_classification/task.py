"""The task `classification`: one class an image.

B images, D width, K classes, C channels, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reorder_classification.metrics import ClassificationMetrics
from reorder_classification.mixing import Mixer
from reorder_classification.settings import ClassificationSettings
from reorder_core import Batch, Context, Draw, Features, Layout, TaskResult, UsageError

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


class Classification(nn.Module):
    """A linear head on the backbone's summary, trained with cross-entropy.

    Targets are classes, int64 [B], or (after mixing) probabilities, float32 [B, K]. Label smoothing and the loss of
    exits count in training mode only, so that validation losses of different settings can be compared. The prediction
    is the logits, float32.
    """

    primary = "top1"
    higher_is_better = True
    batch_coupled = False

    def __init__(self, settings: ClassificationSettings, context: Context) -> None:
        super().__init__()
        if context.data is None or context.data.classes is None or context.data.target != "class":
            raise UsageError("classification needs data with one class an image, and with its number of classes")
        self.settings = settings
        self.classes = context.data.classes
        self.norm = nn.LayerNorm(context.width) if settings.norm else nn.Identity()
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(context.width, self.classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02, generator=context.generator)
        nn.init.zeros_(self.head.bias)
        self._mixer = Mixer(settings, self.classes) if settings.mixes else None

    def logits_BK(self, features: Features) -> Tensor:
        """Unnormalised log-probabilities of the classes, in float32 also under autocast."""
        return self._read(features.summary_BD)

    def _read(self, summary_BD: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.dropout(self.norm(summary_BD)))
        return logits_BK.float()

    def predict(self, features: Features) -> Tensor:
        """What an exported model answers with: the logits, float32 [B, K]."""
        return self.logits_BK(features)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Mixup or cutmix, seeded by one number from `generator`; the batch itself where neither is on."""
        return batch if self._mixer is None else self._mixer(batch, generator)

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """One pass, head, cross-entropy of each image; in training that of the exits too, where there are any."""
        features = run(batch.images_BCHW, order)
        logits_BK = self.logits_BK(features)
        loss_B = self._loss_B(logits_BK, batch.target)
        if self.training and self.settings.auxiliary:
            for exit_BD in features.exits:
                loss_B = loss_B + self.settings.auxiliary * self._loss_B(self._read(exit_BD), batch.target)
        return TaskResult(loss_B, logits_BK)

    def _loss_B(self, logits_BK: Tensor, target: Tensor) -> Tensor:
        smoothing = self.settings.label_smoothing if self.training else 0.0
        return cross_entropy(logits_BK, target, reduction="none", label_smoothing=smoothing)

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """1 where the likeliest class is the target's (of mixed targets: their likeliest), else 0; float32 [B]."""
        predicted_B: Tensor = result.prediction.argmax(dim=1)
        return (predicted_B == hard_target_B(batch.target)).float()

    def metrics(self) -> ClassificationMetrics:
        """Fresh: `top1`, `top5` where there are more than five classes, `loss`; on the head's device."""
        return ClassificationMetrics(self.classes).to(self.head.weight.device)

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 32 images with their class and the prediction; see `picture.draw_predictions`."""
        from reorder_classification.picture import draw_predictions

        draw_predictions(batch.images_BCHW, hard_target_B(batch.target), result.prediction, layout, path)


def hard_target_B(target: Tensor) -> Tensor:
    """Classes as they are; the likeliest class of probabilities [B, K]."""
    return target if target.ndim == 1 else target.argmax(dim=1)
