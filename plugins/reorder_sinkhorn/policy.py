"""The policy `gumbel_sinkhorn`: orders drawn by Gumbel noise and matching, learned through the task's gradient.

B images of the whole batch, K drawn orders, N slots (rows) and patches (columns).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reorder_core import Clock, Context, Draw, Outcome, PolicyStep, UsageError
from reorder_core.permutation import kendall_tau
from reorder_core.schedule import shape
from reorder_sinkhorn.logits import FullLogits, LowRankLogits
from reorder_sinkhorn.settings import GumbelSinkhornSettings
from reorder_sinkhorn.sinkhorn import sinkhorn
from reorder_sinkhorn.soft_order import SoftRead, harden


class GumbelSinkhorn(nn.Module):
    """S((X + ε) / τ) with the policy's logits X and Gumbel noise ε, read straight-through (Mena et al. 2018, sec. 4).

    Orders are hard in every forward pass; the task's loss reaches the logits through the doubly stochastic matrices.
    """

    orders_per_image = 1
    prior_N: Tensor

    def __init__(self, settings: GumbelSinkhornSettings, context: Context) -> None:
        """Raises `UsageError` without a generator or a prior, and for settings that do not fit this many patches."""
        super().__init__()
        for problem in settings.contradictions(context.grid.size):
            raise UsageError(f"policy.{problem.key}: {problem.message}")
        if context.prior_N is None:
            raise UsageError("the policy gumbel_sinkhorn needs an order to start from: name an ordering")
        if context.generator is None:
            raise UsageError("the policy gumbel_sinkhorn draws from the run's generator: build it with one in context")
        self.settings = settings
        self.generator = context.generator
        self.learning_rate = settings.learning_rate
        prior_N = torch.as_tensor(context.prior_N, dtype=torch.int64).clone()
        self.register_buffer("prior_N", prior_N, persistent=False)
        self.logits: FullLogits | LowRankLogits = (
            FullLogits(prior_N, settings.spread)
            if settings.parametrisation == "full"
            else LowRankLogits(prior_N, settings.spread, settings.rank)
        )

    def temperature(self, clock: Clock) -> float:
        """bottom · (top / bottom)^shape(progress): geometric between the two temperatures of the settings."""
        top, bottom = self.settings.temperature, self.settings.final_temperature
        return bottom * math.pow(top / bottom, shape(self.settings.schedule)(clock.progress))

    def iterations(self, temperature: float) -> int:
        """How often rows and columns are normalised at this temperature: from one end to the other in step with log τ.

        A function of the temperature and nothing else, so that what is drawn needs no clock.
        """
        top, bottom = self.settings.temperature, self.settings.final_temperature
        first, last = self.settings.iterations, self.settings.final_iterations
        if last is None or top == bottom:
            return first
        share = min(1.0, max(0.0, math.log(temperature / bottom) / math.log(top / bottom)))
        return round(last + (first - last) * share)

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """K orders; image i reads order i % K. Each is the matching of the logits with noise of its own.

        Raises `UsageError` for a temperature that is not positive, and for a batch of fewer images than orders.
        """
        if not temperature > 0:
            raise UsageError(f"gumbel_sinkhorn divides by its temperature, so it must be above 0, not {temperature:g}")
        k = self.settings.orders
        if batch < k:
            raise UsageError(f"{k} orders do not fit a batch of {batch} images: lower policy.orders")
        with torch.autocast(self.prior_N.device.type, enabled=False):
            logits_NN = self.logits()
            soft, perm = [], []
            for _ in range(k):
                noise_NN = gumbel_noise(len(logits_NN), self.generator).to(logits_NN.device)
                noisy_NN = logits_NN + self.settings.noise * noise_NN
                perm.append(harden(noisy_NN))
                soft.append(sinkhorn(noisy_NN / temperature, self.iterations(temperature)))
        soft_KNN, perm_KN = torch.stack(soft), torch.stack(perm)
        group_B = torch.arange(batch, device=perm_KN.device) % k
        return Draw(perm_KN, group_B, soft=SoftRead(soft_KNN, perm_KN, group_B), aux=temperature)

    @torch.no_grad()
    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """The matching of the logits without noise, int64 [N]; before the first update the prior itself."""
        return harden(self.logits(torch.float64))

    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """The task's loss has already taught the logits: no loss but the entropy penalty, where there is one."""
        loss = None
        if self.settings.entropy_penalty > 0:
            soft_NN = sinkhorn(self.logits() / draw.aux, self.iterations(draw.aux))
            loss = self.settings.entropy_penalty * entropy(soft_NN)
        return PolicyStep(loss, lambda: self._metrics(draw, outcome))

    @torch.no_grad()
    def _metrics(self, draw: Draw, outcome: Outcome) -> dict[str, float]:
        assert isinstance(draw.soft, SoftRead)
        soft_KNN, best_N = draw.soft.soft_GNN.detach(), self.best()
        metrics = {
            "reward": -outcome.loss_MB[0].double().mean(),
            "entropy": entropy(soft_KNN),
            "sharpness": sum(kendall_tau(perm_N, best_N) for perm_N in draw.perm_GN) / len(draw.perm_GN),
            "agreement": (soft_KNN.argmax(-1) == draw.perm_GN).double().mean(),
            "row_error": (soft_KNN.sum(-1) - 1.0).abs().max(),
            "column_error": (soft_KNN.sum(-2) - 1.0).abs().max(),
            "kendall_tau_to_prior": kendall_tau(best_N, self.prior_N),
        }
        return {name: float(value) for name, value in metrics.items()}


def gumbel_noise(size: int, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise −log(−log u), float32 [N, N], on the CPU, the same wherever the logits live."""
    noise_NN = torch.rand(size, size, generator=generator)
    return noise_NN.clamp_(min=torch.finfo(torch.float32).tiny).log_().neg_().log_().neg_()


def entropy(soft: Tensor) -> Tensor:
    """Mean entropy of the rows of [..., N, N] in nats a slot: 0 for a permutation, log N where all is even."""
    # an entry that has underflowed to 0 would have an infinite derivative
    return torch.special.entr(soft.clamp(min=torch.finfo(soft.dtype).tiny)).sum(-1).mean()
