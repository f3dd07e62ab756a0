"""The policy that has no opinion: uniform random orders.

B images of the global batch, G orders, N patches.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reorder_core import Clock, Context, Draw, Outcome, PolicyStep, UsageError

if TYPE_CHECKING:
    from reorder_controls.settings import UniformSettings


class Uniform(nn.Module):
    """Draws `orders` uniform permutations a batch and never learns; its best order stays the prior.

    The control of every policy: a model that trains under it has seen a spread of orders, but no preference.
    """

    orders_per_image = 1
    learning_rate: float | None = None
    prior_N: Tensor

    def __init__(self, settings: UniformSettings, context: Context) -> None:
        super().__init__()
        if context.generator is None:
            raise UsageError("the policy 'uniform' draws from the run's generator: build it with one in its context")
        patches = torch.arange(context.grid.size)
        prior_N = patches if context.prior_N is None else torch.as_tensor(context.prior_N, dtype=torch.int64).clone()
        self.register_buffer("prior_N", prior_N)
        self.orders = settings.orders
        self._generator = context.generator

    def temperature(self, clock: Clock) -> float:
        """Always 1: the law is flat at any temperature."""
        return 1.0

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """Image b reads in order `b mod orders`, so that every process sees every order."""
        count = min(self.orders, batch)
        size = self.prior_N.numel()
        perm_GN = torch.stack([torch.randperm(size, generator=self._generator) for _ in range(count)])
        group_B = torch.arange(batch) % count
        device = self.prior_N.device
        log_prob_G = torch.full((count,), -math.lgamma(size + 1))
        return Draw(perm_GN.to(device), group_B.to(device), log_prob_G=log_prob_G.to(device))

    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        return self.prior_N.clone()

    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        return PolicyStep()
