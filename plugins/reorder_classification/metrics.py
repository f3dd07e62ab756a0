"""Top-1, top-5 and mean loss over a split, by torchmetrics (which adds up over processes when it computes)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from reorder_core import Batch, TaskResult


class ClassificationMetrics:
    """Shares from 0 to 1. Top-5 only where there are more than five classes: with fewer it is always 1."""

    def __init__(self, classes: int) -> None:
        ranks = {"top1": 1, "top5": 5} if classes > 5 else {"top1": 1}
        self._accuracies = MetricCollection(
            {
                name: MulticlassAccuracy(classes, top_k=rank, average="micro", dist_sync_on_step=False)
                for name, rank in ranks.items()
            },
            compute_groups=False,
        )
        self._loss = MeanMetric(nan_strategy="disable", dist_sync_on_step=False)

    def to(self, device: torch.device) -> ClassificationMetrics:
        """The same metrics with their sums on `device`."""
        self._accuracies.to(device)
        self._loss.to(device)
        return self

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Count one batch. Mixed targets count as their likeliest class."""
        target = batch.target if batch.target.ndim == 1 else batch.target.argmax(dim=1)
        self._accuracies.update(result.prediction.detach(), target)
        self._loss.update(result.loss_B.detach())

    def compute(self) -> Mapping[str, float]:
        """Over all processes: {"top1": …, "top5": …, "loss": …}."""
        accuracies = {name: float(value) for name, value in self._accuracies.compute().items()}
        return {**accuracies, "loss": float(self._loss.compute())}

    def reset(self) -> None:
        """Forget every batch."""
        self._accuracies.reset()
        self._loss.reset()
