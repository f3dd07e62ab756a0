"""Mean loss, what the mean of the visible patches would lose, and the signal-to-noise ratio, by torchmetrics.

B images, N patches, P pixels of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import MaxMetric, MeanMetric, Metric, MetricCollection, MinMetric

from reorder_core import Batch, TaskResult
from reorder_reconstruction.settings import ReconstructionSettings

_LEAST = 1e-12  # a perfect prediction of plain pixels has a finite psnr


class ReconstructionMetrics:
    """Sums over a split, added up over processes when they are computed.

    `loss`: what is trained. `baseline`: the same loss, where every patch is predicted to be the mean of the image's
    visible patches, which is the best guess that looks at no place. `explained`: 1 - loss / baseline; 1 is perfect, 0
    no better than that guess. `psnr`, in dB: of the masked pixels, where they are not normalised (a patch without its
    mean and contrast is no signal); the peak is the range of the split's pixels.
    """

    def __init__(self, settings: ReconstructionSettings) -> None:
        self._all, self._plain = settings.loss == "all", not settings.normalise
        kinds: dict[str, type[Metric]] = {"loss": MeanMetric, "baseline": MeanMetric}
        if self._plain:
            kinds |= {"error": MeanMetric, "low": MinMetric, "high": MaxMetric}
        self._sums = MetricCollection(
            {name: kind(nan_strategy="disable", dist_sync_on_step=False) for name, kind in kinds.items()},
            compute_groups=False,
        )

    def to(self, device: torch.device) -> ReconstructionMetrics:
        """The same metrics with their sums on `device`."""
        self._sums.to(device)
        return self

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Count one batch."""
        said_BNP, true_BNP, mask_BN = result.prediction
        counted_BN = torch.ones_like(mask_BN) if self._all else mask_BN
        self._sums["loss"].update(result.loss_B.detach())
        self._sums["baseline"].update(baseline_B(true_BNP, mask_BN, counted_BN))
        if self._plain:
            self._sums["error"].update((said_BNP - true_BNP).square().mean(dim=-1)[mask_BN])
            self._sums["low"].update(true_BNP)
            self._sums["high"].update(true_BNP)

    def compute(self) -> Mapping[str, float]:
        """Over all processes: {"loss": …, "baseline": …, "explained": …} and, of plain pixels, "psnr"."""
        value = {name: float(total) for name, total in self._sums.compute().items()}
        found = {"loss": value["loss"], "baseline": value["baseline"]}
        found["explained"] = 1 - found["loss"] / max(found["baseline"], _LEAST)
        if self._plain:
            peak = max(value["high"] - value["low"], _LEAST)
            found["psnr"] = 10 * math.log10(peak**2 / max(value["error"], _LEAST))
        return found

    def reset(self) -> None:
        """Forget every batch."""
        self._sums.reset()


def baseline_B(true_BNP: Tensor, mask_BN: Tensor, counted_BN: Tensor) -> Tensor:
    """The loss of each image where every patch is said to be the mean of its visible patches, pixel by pixel."""
    visible_BN1 = (~mask_BN).unsqueeze(-1).to(true_BNP.dtype)
    mean_B1P = (true_BNP * visible_BN1).sum(dim=1, keepdim=True) / visible_BN1.sum(dim=1, keepdim=True)
    error_BN = (true_BNP - mean_B1P).square().mean(dim=-1)
    return (error_BN * counted_BN).sum(dim=1) / counted_BN.sum(dim=1)
