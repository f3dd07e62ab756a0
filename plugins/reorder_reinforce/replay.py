"""Earlier batches used again, weighted by how the law has moved since (Schulman et al. 2017, eq. 7).

R batches kept, K orders of each, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: The minimum alone leaves the ratio of an order with a negative advantage unbounded, and orders of many patches reach
#: e^100; this bounds it at 10 (the second clip of Ye et al. 2020, "Mastering complex control in MOBA games").
_LARGEST_LOG_RATIO = math.log(10.0)


class Replay(torch.nn.Module):
    """The last R batches of orders with the advantage and the log-probability that they had when they were drawn.

    Clipping makes the estimate biased: an order whose probability has moved by more than `clip` in the direction of its
    advantage teaches nothing more.
    """

    perm_RKN: Tensor
    curve_RK: Tensor
    log_prob_RK: Tensor
    advantage_RK: Tensor
    steps: Tensor

    def __init__(self, kept: int, orders: int, patches: int, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("perm_RKN", torch.arange(patches).repeat(kept, orders, 1))
        self.register_buffer("curve_RK", torch.zeros(kept, orders, dtype=torch.int64))
        self.register_buffer("log_prob_RK", torch.zeros(kept, orders, dtype=torch.float64))
        self.register_buffer("advantage_RK", torch.zeros(kept, orders, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def objective(self, log_prob: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, int]:
        """Σ over the kept batches of mean min(ratio · A, clipped ratio · A), and how many batches those are.

        log_prob(curve, perm [G, N]) -> [G], under the law as it is now, with gradient.
        """
        kept = min(int(self.steps), len(self.perm_RKN))
        if kept == 0:
            return self.log_prob_RK.new_zeros(()), 0
        # copies, because `keep` overwrites the buffers before the gradient is taken
        now_G = log_prob(self.curve_RK[:kept].reshape(-1).clone(), self.perm_RKN[:kept].flatten(0, 1).clone())
        log_ratio_G = now_G - self.log_prob_RK[:kept].reshape(-1)
        ratio_G = log_ratio_G.clamp(max=_LARGEST_LOG_RATIO).exp()
        advantage_G = self.advantage_RK[:kept].reshape(-1).clone()
        clipped_G = ratio_G.clamp(1.0 - self.clip, 1.0 + self.clip)
        worst_G = torch.minimum(ratio_G * advantage_G, clipped_G * advantage_G)
        return worst_G.sum() / self.perm_RKN.shape[1], kept

    @torch.no_grad()
    def keep(self, curve_K: Tensor, perm_KN: Tensor, log_prob_K: Tensor, advantage_K: Tensor) -> None:
        """Put a batch in the place of the oldest."""
        place = int(self.steps) % len(self.perm_RKN)
        self.perm_RKN[place] = perm_KN
        self.curve_RK[place] = curve_K
        self.log_prob_RK[place] = log_prob_K.detach()
        self.advantage_RK[place] = advantage_K
        self.steps += 1
