"""From losses to advantages: what multiplies ∇ log p of each order. Every choice here keeps the estimate unbiased.

A baseline may read anything that does not depend on the order it is subtracted for: the rewards of the other,
independent orders, and whatever was known before the draw.

G orders, B images, M orders an image.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Baseline(Protocol):
    """Turns the reward of each order into its advantage, and remembers what it needs."""

    def advantages(self, reward_G: Tensor) -> Tensor:
        """Advantages [G] of rewards [G]."""
        ...


class NoBaseline(torch.nn.Module):
    """The reward itself (Williams 1992)."""

    def advantages(self, reward_G: Tensor) -> Tensor:
        return reward_G


class LeaveOneOut(torch.nn.Module):
    """reward_g − mean of the other orders' rewards (RLOO: Kool, van Hoof & Welling 2019). No state.

    apart_GG is True where order h may serve order g: not itself, and not the other half of an antithetic pair, which
    was drawn with the same noise and would bias the estimate.
    """

    apart_GG: Tensor

    def __init__(self, groups: int, antithetic: bool) -> None:
        super().__init__()
        self.register_buffer("apart_GG", apart(groups, antithetic), persistent=False)

    def advantages(self, reward_G: Tensor) -> Tensor:
        apart_GG = self.apart_GG.to(reward_G)
        return reward_G - (apart_GG @ reward_G) / apart_GG.sum(1)


class MovingAverage(torch.nn.Module):
    """reward − a moving average of earlier rewards: b ← decay · b + (1 − decay) · mean reward, after it was used.

    The first call has no earlier rewards: it only sets the average, and its advantages are 0.
    """

    mean: Tensor
    seen: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def advantages(self, reward_G: Tensor) -> Tensor:
        now = reward_G.mean()
        if not self.seen:
            self.mean.copy_(now)
            self.seen.fill_(True)
            return torch.zeros_like(reward_G)
        advantage_G = reward_G - self.mean.to(reward_G)
        self.mean.lerp_(now.to(self.mean), 1.0 - self.decay)
        return advantage_G


class ImageAverage(torch.nn.Module):
    """A moving average of each training image's own losses: how hard an image is, known before the draw.

    An image not seen before gets the mean over those that were, so that it is neither favoured nor punished.
    """

    loss_I: Tensor
    seen_I: Tensor

    def __init__(self, images: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("loss_I", torch.zeros(images, dtype=torch.float64))
        self.register_buffer("seen_I", torch.zeros(images, dtype=torch.bool))

    def control(self, index_B: Tensor) -> Tensor:
        """What to subtract from each image's loss, [B]; nothing is changed."""
        common = self.loss_I.sum() / self.seen_I.sum().clamp(min=1)
        return torch.where(self.seen_I[index_B], self.loss_I[index_B], common)

    def update(self, index_B: Tensor, loss_B: Tensor) -> None:
        old_B = torch.where(self.seen_I[index_B], self.loss_I[index_B], loss_B)
        self.loss_I[index_B] = old_B.lerp(loss_B, 1.0 - self.decay)
        self.seen_I[index_B] = True


def apart(groups: int, antithetic: bool) -> Tensor:
    """Which orders were drawn with noise of their own, bool [G, G]: False for itself and for its antithetic partner."""
    pair_G = torch.arange(groups) % (groups // 2) if antithetic else torch.arange(groups)
    return pair_G[:, None] != pair_G[None, :]


def within_images(reward_MB: Tensor, group_MB: Tensor, groups: int) -> Tensor:
    """Advantages [G] for M > 1 orders an image: each image's reward minus the mean of its rewards under its *other*
    orders, averaged over the group. Leave-one-out image by image: the image's own difficulty drops out exactly.

    An image's orders must be independent of each other (no antithetic partners among them).
    """
    others_MB = (reward_MB.sum(0) - reward_MB) / (reward_MB.shape[0] - 1)
    return group_mean(reward_MB - others_MB, group_MB, groups)


def group_mean(value_MB: Tensor, group_MB: Tensor, groups: int) -> Tensor:
    """The mean of each group's values, [G]."""
    total_G = value_MB.new_zeros(groups).index_add_(0, group_MB.reshape(-1), value_MB.reshape(-1))
    count_G = value_MB.new_zeros(groups).index_add_(0, group_MB.reshape(-1), torch.ones_like(value_MB).reshape(-1))
    return total_G / count_G
