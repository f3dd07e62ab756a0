"""The policy `random_search`: uniform random orders in a race against the best so far.

B images of the whole batch, M orders an image, K orders in the pool, N patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reorder_bandit.batch import reads, share_out
from reorder_bandit.evidence import Evidence
from reorder_bandit.start import prior_order, refuse_contradictions
from reorder_core import Clock, Context, Draw, Outcome, PolicyStep
from reorder_core.permutation import kendall_tau

if TYPE_CHECKING:
    from reorder_bandit.settings import RandomSearchSettings


class RandomSearch(nn.Module):
    """Every batch is read in the best order so far and in K − 1 challengers.

    The best of many noisy evaluations is mostly lucky. So nothing is decided by one batch: the best order is read again
    in every batch, next to the challengers and on images of the same batch; a challenger stays while it is ahead, and
    takes over once it leads by `confidence` standard errors of all reads of both. One that falls behind makes room.
    """

    learning_rate: float | None = None
    pool_KN: Tensor
    best_place: Tensor
    drawn: Tensor
    prior_N: Tensor

    def __init__(self, settings: RandomSearchSettings, context: Context) -> None:
        super().__init__()
        refuse_contradictions(settings)
        self.settings = settings
        self.orders_per_image = settings.orders_per_image
        self._generator = context.generator
        prior_N = torch.from_numpy(prior_order("random_search", context))
        challengers = [self._any_order(len(prior_N)) for _ in range(settings.orders - 1)]
        self.register_buffer("prior_N", prior_N.clone(), persistent=False)
        self.register_buffer("pool_KN", torch.stack([prior_N, *challengers]))
        self.register_buffer("best_place", torch.zeros((), dtype=torch.int64))
        self.register_buffer("drawn", torch.tensor(settings.orders, dtype=torch.int64))
        self.evidence = Evidence(settings.orders, settings.discount)

    def temperature(self, clock: Clock) -> float:
        """1 while it searches, 0 after: the law that challengers come from is flat."""
        return float(clock.learning)

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """The whole pool, the best order in the place where it stands; image i reads order i % K."""
        return share_out(self.pool_KN.clone(), batch, self.orders_per_image, self._generator)

    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """The best order so far; the prior until a challenger has beaten it."""
        return self.pool_KN[self.best_place].clone()

    @torch.no_grad()
    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """Add the batch, let the surest winner take over, and draw new orders for challengers that fell behind."""
        reward_MB = -outcome.loss_MB.detach().double().to(self.pool_KN.device)
        self.evidence.add(reward_MB, reads(draw))
        lead_K, error_K = self.evidence.against(int(self.best_place))
        winner_K = lead_K - self.settings.confidence * error_K
        if bool((winner_K > 0).any()):
            self.best_place.copy_(winner_K.argmax())
            lead_K, error_K = self.evidence.against(int(self.best_place))
        behind_K = lead_K + self.settings.drop * error_K < 0
        for place in behind_K.nonzero()[:, 0].tolist():
            self.evidence.forget(place)
            self.pool_KN[place] = self._any_order(self.pool_KN.shape[1]).to(self.pool_KN.device)
            self.drawn += 1
        return PolicyStep(metrics=lambda: self._metrics(reward_MB))

    def _any_order(self, size: int) -> Tensor:
        return torch.randperm(size, generator=self._generator)

    def _metrics(self, reward_MB: Tensor) -> dict[str, float]:
        return {
            "reward": float(reward_MB[0].mean()),
            "orders_drawn": int(self.drawn),
            "reads_of_best": float(self.evidence.reads_A[self.best_place]),
            "noise": float(self.evidence.noise()),
            "kendall_tau_to_prior": float(kendall_tau(self.best(), self.prior_N)),
        }
