"""Losses of each image, from its own known pixels alone.

B images, K classes, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from reorder_core.interfaces.targets import IGNORED


def pixel_loss_B(logits_BKHW: Tensor, mask_BHW: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over an image's known pixels, weighted by class as in PyTorch; 0 where none is known."""
    loss_BHW = cross_entropy(logits_BKHW, mask_BHW, weight_K, ignore_index=IGNORED, reduction="none")
    known_BHW = mask_BHW != IGNORED
    if weight_K is None:
        weight_B = known_BHW.sum(dim=(1, 2))
    else:
        weight_B = (weight_K[mask_BHW.where(known_BHW, 0)] * known_BHW).sum(dim=(1, 2))
    return loss_BHW.sum(dim=(1, 2)) / weight_B.where(weight_B > 0, 1)


def dice_loss_B(logits_BKHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """1 - 2·Σ p·t / (Σ p + Σ t) over known pixels, mean over the classes that an image shows; 0 where none is known.

    p are softmax probabilities, t is 1 at a pixel's class (Milletari et al. 2016, arXiv 1606.04797, section 3, without
    the squares, as is usual for several classes).
    """
    known_B1HW = (mask_BHW != IGNORED).unsqueeze(1)
    probability_BKHW = logits_BKHW.softmax(dim=1) * known_B1HW
    true_BKHW = torch.zeros_like(probability_BKHW).scatter_(1, mask_BHW.unsqueeze(1).where(known_B1HW, 0), 1.0)
    true_BKHW = true_BKHW * known_B1HW
    true_BK = true_BKHW.sum(dim=(2, 3))
    common_BK = (probability_BKHW * true_BKHW).sum(dim=(2, 3))
    dice_BK = 2 * common_BK / (probability_BKHW.sum(dim=(2, 3)) + true_BK).clamp(min=1e-6)
    shown_BK = true_BK > 0
    return ((1 - dice_BK) * shown_BK).sum(dim=1) / shown_BK.sum(dim=1).clamp(min=1)
