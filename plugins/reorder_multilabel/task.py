"""The task `multilabel`: several classes an image.

B images, D width, K classes, C channels, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reorder_core import Batch, Context, Draw, Features, Layout, TaskResult, UsageError
from reorder_multilabel.losses import asymmetric_loss_B, binary_loss_B
from reorder_multilabel.metrics import MultilabelMetrics, ranking_precision_B
from reorder_multilabel.settings import MultilabelSettings

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


class Multilabel(nn.Module):
    """A linear head with a yes or no for each class.

    Targets are float32 [B, K], 1 for a class that is there, 0 for one that is not, NaN for one of which nothing is
    known: no loss and no metric counts it. The prediction is the logits, float32 [B, K].
    """

    primary = "map"
    score = "precision of an image's ranking"
    higher_is_better = True
    batch_coupled = False

    def __init__(self, settings: MultilabelSettings, context: Context) -> None:
        super().__init__()
        data = context.data
        if data is None or data.classes is None or data.target != "classes":
            raise UsageError("multilabel needs data with several classes an image: set data.target to classes")
        self.settings, self.classes = settings, data.classes
        names = tuple(getattr(context.dataset, "classes", ()))
        self.names = names if len(names) == self.classes else tuple(map(str, range(self.classes)))
        self.norm = nn.LayerNorm(context.width) if settings.norm else nn.Identity()
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(context.width, self.classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02, generator=context.generator)
        nn.init.zeros_(self.head.bias)

    def predict(self, features: Features) -> Tensor:
        """What an exported model answers with: the logits, float32 [B, K], also under autocast."""
        read_BD = features.summary_BD if self.settings.read == "summary" else _mean_BD(features)
        logits_BK: Tensor = self.head(self.dropout(self.norm(read_BD)))
        return logits_BK.float()

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch itself."""
        return batch

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """One pass, head, the loss of each image over its known classes."""
        logits_BK = self.predict(run(batch.images_BCHW, order))
        return TaskResult(self._loss_B(logits_BK, batch.target.float()), logits_BK)

    def _loss_B(self, logits_BK: Tensor, target_BK: Tensor) -> Tensor:
        if self.settings.loss == "bce":
            return binary_loss_B(logits_BK, target_BK)
        settings = self.settings
        return asymmetric_loss_B(logits_BK, target_BK, settings.gamma_neg, settings.gamma_pos, settings.clip)

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """Label ranking average precision of each image, float32 [B]; see `metrics.ranking_precision_B`."""
        return ranking_precision_B(result.prediction, batch.target)

    def metrics(self) -> MultilabelMetrics:
        """Fresh: `map`, `map_micro`, `f1`, `exact_match`, `loss`; on the head's device."""
        return MultilabelMetrics().to(self.head.weight.device)

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 32 images with their classes, true and said; see `picture.draw_labels`."""
        from reorder_multilabel.picture import draw_labels

        draw_labels(batch.images_BCHW, batch.target, result.prediction, self.names, layout, path)


def _mean_BD(features: Features) -> Tensor:
    """The mean of the tokens of the last level that are no padding."""
    level = features.levels[-1]
    if level.layout.valid_BN is None:
        return level.tokens_BND.mean(dim=1)
    weight_BN1 = level.layout.valid_BN.to(level.tokens_BND.dtype).unsqueeze(-1)
    return (level.tokens_BND * weight_BN1).sum(dim=1) / weight_BN1.sum(dim=1).clamp(min=1)
