"""Mean average precision, F1 and exact matches over a split; the precision of one image's ranking.

B images, S images of a split, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics import CatMetric, MeanMetric

from reorder_core import Batch, TaskResult

Array = NDArray[np.float64]


class MultilabelMetrics:
    """Logits and targets are kept to the end of a split (torchmetrics joins those of all processes)."""

    def __init__(self) -> None:
        self._kept = CatMetric(nan_strategy="disable", dist_sync_on_step=False)
        self._loss = MeanMetric(nan_strategy="disable", dist_sync_on_step=False)

    def to(self, device: torch.device) -> MultilabelMetrics:
        """The same metrics on `device`."""
        self._kept.to(device)
        self._loss.to(device)
        return self

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Keep one batch."""
        self._kept.update(torch.cat([result.prediction.detach().float(), batch.target.float()], dim=1))
        self._loss.update(result.loss_B.detach())

    def compute(self) -> Mapping[str, float]:
        """Over all processes: {"map": …, "map_micro": …, "f1": …, "exact_match": …, "loss": …}."""
        logits_SK, target_SK = np.split(self._kept.compute().double().cpu().numpy(), 2, axis=1)
        return {**measures(logits_SK, target_SK), "loss": float(self._loss.compute())}

    def reset(self) -> None:
        """Forget every batch."""
        self._kept.reset()
        self._loss.reset()


def measures(logits_SK: Array, target_SK: Array) -> dict[str, float]:
    """What is known (not NaN) counts; a class is said to be there where its logit is above 0, a probability of 0.5.

    map: mean over classes of the average precision (scikit-learn's: the sum of precision over the steps of recall),
    classes without a positive left out. map_micro: of all images and classes in one ranking. f1: of all of them
    together, 1 where nothing was to be found and nothing was said. exact_match: share of images with every class right.
    NaN: average precisions without any positive.
    """
    known_SK = ~np.isnan(target_SK)
    true_SK, said_SK = (target_SK > 0.5) & known_SK, (logits_SK > 0) & known_SK
    with_positives = np.flatnonzero(true_SK.any(axis=0))
    each = [average_precision_score(true_SK[known_SK[:, k], k], logits_SK[known_SK[:, k], k]) for k in with_positives]
    together = average_precision_score(true_SK[known_SK], logits_SK[known_SK]) if each else float("nan")
    hits, marked = int((true_SK & said_SK).sum()), int(true_SK.sum()) + int(said_SK.sum())
    return {
        "map": float(np.mean(each)) if each else float("nan"),
        "map_micro": float(together),
        "f1": 2 * hits / marked if marked else 1.0,
        "exact_match": float((true_SK == said_SK).all(axis=1).mean()),
    }


def ranking_precision_B(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Label ranking average precision of each image, float32 [B] (Tsoumakas et al. 2010; as scikit-learn has it).

    For each class that is there: which share of the classes ranked as high or higher are there too; their mean. 1 for
    an image of which no class is known to be there.
    """
    known_BK = ~target_BK.isnan()
    true_BK = (target_BK > 0.5) & known_BK
    above_BKK = (logits_BK[:, None, :] >= logits_BK[:, :, None]) & known_BK[:, None, :]
    share_BK = (above_BKK & true_BK[:, None, :]).sum(dim=2) / above_BKK.sum(dim=2).clamp(min=1)
    count_B = true_BK.sum(dim=1)
    return torch.where(count_B > 0, (share_BK * true_BK).sum(dim=1) / count_B.clamp(min=1), 1.0).float()
