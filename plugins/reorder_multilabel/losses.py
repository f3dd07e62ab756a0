"""Losses of each image, over the classes that are known of it.

B images, K classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

_SMALLEST = 1e-8


def binary_loss_B(logits_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Mean binary cross-entropy over the classes that are known of an image (not NaN); 0 where none is."""
    known_BK = ~target_BK.isnan()
    target_BK = target_BK.nan_to_num(nan=0.0)
    return _mean_B(binary_cross_entropy_with_logits(logits_BK, target_BK, reduction="none"), known_BK)


def asymmetric_loss_B(logits_BK: Tensor, target_BK: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """Mean asymmetric loss over the classes that are known of an image (not NaN); 0 where none is.

    Ridnik et al. 2021, arXiv 2009.14119, eq. 7: (1 - p)^γ+ log p for a class that is there, q^γ- log(1 - q) for one
    that is not, q = max(p - clip, 0), both negated; as timm's AsymmetricLossMultiLabel, whose sum over classes this
    divides by their number.
    """
    known_BK = ~target_BK.isnan()
    positive_BK = target_BK.nan_to_num(nan=0.0)
    there_BK = logits_BK.sigmoid()
    absent_BK = (1 - there_BK + clip).clamp(max=1)
    log_BK = (
        positive_BK * there_BK.clamp(min=_SMALLEST).log() + (1 - positive_BK) * absent_BK.clamp(min=_SMALLEST).log()
    )
    right_BK = there_BK * positive_BK + absent_BK * (1 - positive_BK)
    gamma_BK = gamma_pos * positive_BK + gamma_neg * (1 - positive_BK)
    return _mean_B(-log_BK * (1 - right_BK) ** gamma_BK, known_BK)


def _mean_B(loss_BK: Tensor, known_BK: Tensor) -> Tensor:
    return (loss_BK * known_BK).sum(dim=1) / known_BK.sum(dim=1).clamp(min=1)
