"""Advantages of the orders that an image was read in. Every baseline keeps the estimate unbiased.

B images, M orders an image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out(reward_MB: Tensor, antithetic: bool) -> Tensor:
    """Each image's reward in an order, less the mean of its rewards in its other orders (RLOO: Kool, van Hoof &
    Welling 2019), without the order drawn with the opposite noise, which is not independent. [M, B]."""
    orders = reward_MB.shape[0]
    number_M = torch.arange(orders, device=reward_MB.device)
    pair_M = number_M % (orders // 2) if antithetic else number_M
    apart_MM = (pair_M[:, None] != pair_M[None, :]).to(reward_MB)
    return reward_MB - (apart_MM @ reward_MB) / apart_MM.sum(1, keepdim=True)


def less_other_images(reward_MB: Tensor) -> Tensor:
    """Less the mean reward of the other images, whose orders were drawn independently. [M, B]."""
    of_image_B = reward_MB.mean(0)
    return reward_MB - (of_image_B.sum() - of_image_B) / (len(of_image_B) - 1)
