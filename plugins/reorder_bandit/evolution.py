"""The policy `evolution`: a logit for each patch, moved by evolution strategies.

B images of the whole batch, M orders an image, K orders (offspring), N patches.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reorder_bandit.batch import effects, reads, share_out
from reorder_bandit.start import prior_order, refuse_contradictions
from reorder_core import Clock, Context, Draw, Outcome, PolicyStep
from reorder_core.permutation import kendall_tau
from reorder_core.schedule import shape

if TYPE_CHECKING:
    from reorder_bandit.settings import EvolutionSettings


class Evolution(nn.Module):
    """Offspring are the orders of noisy logits; the logits move towards the noise of those that did well.

        order_k = argsort(−(logits + σ ε_k)),  ε_k ~ N(0, 1)        logits += step_size · σ · Σ_k u_k ε_k

    u_k depends on the rank of order k alone, so that neither the scale of the losses nor an outlier matters. Unlike
    REINFORCE it needs no probability of an order; like it, it can only say early or late.
    """

    learning_rate: float | None = None
    logits_N: Tensor
    prior_N: Tensor
    utility_K: Tensor

    def __init__(self, settings: EvolutionSettings, context: Context) -> None:
        super().__init__()
        refuse_contradictions(settings)
        self.settings = settings
        self.orders_per_image = settings.orders_per_image
        self._generator = context.generator
        prior_N = torch.from_numpy(prior_order("evolution", context))
        fall_N = torch.linspace(0.0, -settings.spread, len(prior_N), dtype=torch.float64)
        self.register_buffer("prior_N", prior_N, persistent=False)
        self.register_buffer("logits_N", torch.empty_like(fall_N).scatter_(0, prior_N, fall_N))
        utility_K = (
            nes_utilities(settings.orders) if settings.strategy == "antithetic" else comma_weights(settings.orders)
        )
        self.register_buffer("utility_K", utility_K, persistent=False)

    def temperature(self, clock: Clock) -> float:
        """σ, the standard deviation of the noise on the logits: along its schedule while the policy learns, else 0."""
        return self.settings.sigma * shape(self.settings.schedule)(clock.progress) if clock.learning else 0.0

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """K offspring, shared out between the images: image i reads order i % K. At temperature 0 all are the best."""
        k, n = self.settings.orders, len(self.prior_N)
        pairs = k // 2 if self.settings.strategy == "antithetic" else k
        noise_KN = torch.randn(pairs, n, dtype=torch.float64, generator=self._generator).to(self.logits_N.device)
        if self.settings.strategy == "antithetic":
            noise_KN = torch.cat([noise_KN, -noise_KN])
        perm_KN = self._sorted(self.logits_N + temperature * noise_KN)
        draw = share_out(perm_KN, batch, self.orders_per_image, self._generator)
        return Draw(draw.perm_GN, draw.group_B, draw.extra_MB, aux=(noise_KN, temperature))

    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """Patches by falling logit; those with the same logit as in the prior."""
        return self._sorted(self.logits_N[None])[0]

    @torch.no_grad()
    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """Rank the offspring by their mean reward and move the logits; no loss."""
        noise_KN, sigma = draw.aux
        reward_MB = -outcome.loss_MB.detach().double().to(self.logits_N.device)
        effect_K = effects(reward_MB, reads(draw), len(noise_KN))
        utility_K = by_rank(effect_K, self.utility_K)
        self.logits_N += self.settings.step_size * sigma * (utility_K @ noise_KN)
        return PolicyStep(metrics=lambda: self._metrics(reward_MB, effect_K, sigma))

    def _sorted(self, logits_KN: Tensor) -> Tensor:
        """Orders [K, N] by falling logits; ties stand as in the prior."""
        place_KN = logits_KN[:, self.prior_N].argsort(dim=1, descending=True, stable=True)
        return self.prior_N[place_KN]

    def _metrics(self, reward_MB: Tensor, effect_K: Tensor, sigma: float) -> dict[str, float]:
        return {
            "reward": float(reward_MB[0].mean()),
            "sigma": sigma,
            "spread_of_logits": float(self.logits_N.max() - self.logits_N.min()),
            "spread_of_rewards": float(effect_K.std(correction=0)),
            "kendall_tau_to_prior": float(kendall_tau(self.best(), self.prior_N)),
        }


def nes_utilities(k: int) -> Tensor:
    """Weights of ranks, best first, [K], of natural evolution strategies (Wierstra et al. 2014, section 3.1):

    u_r = max(0, ln(K/2 + 1) − ln r) / Σ …  − 1/K, which sum to 0: a common shift of all rewards moves nothing.
    """
    rank_K = torch.arange(1, k + 1, dtype=torch.float64)
    raw_K = (math.log(k / 2 + 1) - rank_K.log()).clamp(min=0.0)
    return raw_K / raw_K.sum() - 1.0 / k


def comma_weights(k: int) -> Tensor:
    """Weights of ranks, best first, [K], of the (μ/μ, λ) strategy with μ = λ/2 (Hansen 2016, eq. 49):

    u_r = (ln((λ+1)/2) − ln r) / Σ …  for the better half, which sum to 1, and 0 for the rest.
    """
    rank_K = torch.arange(1, k + 1, dtype=torch.float64)
    raw_K = torch.where(rank_K <= max(1, k // 2), math.log((k + 1) / 2) - rank_K.log(), 0.0)
    return raw_K / raw_K.sum()


def by_rank(value_K: Tensor, weight_K: Tensor) -> Tensor:
    """Each order's weight by the rank of its value (highest first); equal values share the mean of their weights."""
    place_K = value_K.argsort(descending=True, stable=True)
    ranked_K = torch.empty_like(weight_K).scatter_(0, place_K, weight_K)
    same_KK = (value_K[:, None] == value_K[None, :]).to(weight_K)
    return (same_KK @ ranked_K) / same_KK.sum(1)
