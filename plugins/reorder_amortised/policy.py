"""The policy `amortised`: the scores of an image's patches are the prior's ramp plus what a small network sees.

B images of the whole batch, M orders an image, N patches, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reorder_amortised.estimator import leave_one_out, less_other_images
from reorder_amortised.scorer import Scorer
from reorder_amortised.settings import AmortisedSettings
from reorder_core import Clock, Context, Draw, Outcome, PolicyStep, UsageError, seeded
from reorder_core.plackett_luce import (
    entropy_estimate,
    gumbel_top_k,
    kendall_tau,
    mode,
    plackett_luce_log_prob,
    ramp,
    uniform_noise,
)
from reorder_core.schedule import shape
from reorder_core.straight_through import straight_through_sort

_MEAN_DECAY = 0.98  # the mean scores remember about 50 batches
_TAU_COMPARISONS = 400_000  # Kendall τ is read from as many images as cost this many comparisons


@dataclass(frozen=True)
class SoftRead:
    """`Draw.soft`: each image through its own soft order; tokens in patch order to tokens in slot order."""

    scores_BN: Tensor
    perm_BN: Tensor
    temperature: float

    def __call__(self, tokens_BND: Tensor) -> Tensor:
        scores_BN, perm_BN = (each.to(tokens_BND.device) for each in (self.scores_BN, self.perm_BN))
        return straight_through_sort(tokens_BND, scores_BN, perm_BN, self.temperature)

    def part(self, images: slice) -> SoftRead:
        """The same for these images."""
        return replace(self, scores_BN=self.scores_BN[images], perm_BN=self.perm_BN[images])


class Amortised(torch.nn.Module):
    """See README.md for the equations. Its scorer starts at zero, so that the first order of every image is the prior.

    mean_N: a moving average over images and steps of what the scorer adds, float64: the one order that goes with it,
    `best(None)`, is what `order.json` and an exported model have.
    """

    reads_tokens = True
    prior_N: Tensor
    ramp_N: Tensor
    mean_N: Tensor
    seen: Tensor

    def __init__(self, settings: AmortisedSettings, context: Context) -> None:
        super().__init__()
        for problem in settings.contradictions():
            raise UsageError(f"policy.{problem.key}: {problem.message}")
        if context.prior_N is None:
            raise UsageError("the policy amortised needs an order to start from: name an ordering, or policy.prior")
        if context.width < 1:
            raise UsageError("the policy amortised looks at tokens: build it in a context that knows their width")
        self.settings = settings
        self.generator = context.generator
        self.learning_rate = settings.learning_rate
        drawn = settings.orders_per_image if settings.estimator == "reinforce" else 1
        self.drawn = drawn
        self.orders_per_image = drawn + (settings.estimator == "reinforce" and settings.baseline == "greedy")
        prior_N = torch.as_tensor(context.prior_N, dtype=torch.int64).clone()
        self.register_buffer("prior_N", prior_N, persistent=False)
        self.register_buffer("ramp_N", ramp(prior_N, settings.spread), persistent=False)
        self.register_buffer("mean_N", torch.zeros(len(prior_N), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        with seeded(context.generator):
            self.scorer = Scorer(len(prior_N), context.width, settings.hidden, settings.scorer == "context")

    def temperature(self, clock: Clock) -> float:
        """The schedule's shape times the peak while the policy learns, else 0."""
        return self.settings.temperature * shape(self.settings.schedule)(clock.progress) if clock.learning else 0.0

    def scores(self, tokens_BND: Tensor) -> Tensor:
        """The score of each patch in each image, float64 [B, N]: the prior's ramp, and what the scorer adds."""
        return self.ramp_N + self.scorer(tokens_BND).double()

    @torch.no_grad()
    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """Of each image the order of its scores, int64 [B, N]; without images that of the mean scores, int64 [N]."""
        scores = self.ramp_N + self.mean_N if tokens_BND is None else self.scores(tokens_BND)
        return mode(scores, self.prior_N)

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """M orders for each image, or its soft order. At temperature 0 each is the image's best order."""
        if tokens_BND is None:
            raise UsageError("the policy amortised looks at the images: draw needs their tokens")
        scores_BN = self.scores(tokens_BND)
        if self.settings.estimator == "softsort":
            perm_BN = mode(scores_BN, self.prior_N)
            soft = SoftRead(scores_BN.float(), perm_BN, temperature) if temperature > 0.0 else None
            every_B = torch.arange(batch, device=perm_BN.device)
            return Draw(perm_BN, every_B, soft=soft, aux=scores_BN)
        return self.hand_out(scores_BN, self._sample(scores_BN, temperature), temperature)

    def _sample(self, scores_BN: Tensor, temperature: float) -> Tensor:
        """int64 [M, B, N]: drawn with noise from the CPU, the same on every process."""
        if temperature <= 0.0:
            return mode(scores_BN, self.prior_N).expand(self.drawn, -1, -1)
        batch, patches = scores_BN.shape
        noise = uniform_noise(self.drawn, batch * patches, self.generator, self.settings.antithetic)
        return gumbel_top_k(scores_BN / temperature, noise.view(self.drawn, batch, patches))

    def hand_out(self, scores_BN: Tensor, perm_MBN: Tensor, temperature: float) -> Draw:
        """The draw in which these orders were sampled: order m of image b stands at m · B + b."""
        if self.orders_per_image > self.drawn:
            perm_MBN = torch.cat([perm_MBN, mode(scores_BN, self.prior_N)[None]])
        rows, batch, patches = perm_MBN.shape
        perm_GN = perm_MBN.reshape(rows * batch, patches)
        if temperature > 0.0:
            scores_GN = (scores_BN / temperature).expand(rows, -1, -1).reshape(rows * batch, patches)
            log_prob_G = plackett_luce_log_prob(scores_GN, perm_GN)
        else:  # each order is certain
            log_prob_G = scores_BN.new_zeros(rows * batch)
        group_MB = torch.arange(rows * batch, device=perm_GN.device).view(rows, batch)
        extra_MB = group_MB[1:] if rows > 1 else None
        return Draw(perm_GN, group_MB[0], extra_MB, log_prob_G, aux=scores_BN)

    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """REINFORCE: −Σ advantage · log p / (M · B), whose gradient is an unbiased estimate of −∇ mean reward.
        SoftSort: nothing is left to do, as the task's loss has reached the scorer through the soft order."""
        scores_BN = draw.aux.detach()
        self.seen.mul_(_MEAN_DECAY).add_(1.0 - _MEAN_DECAY)
        # a running mean that starts without a bias towards 0, which is the prior
        self.mean_N.lerp_((scores_BN - self.ramp_N).mean(0), float((1.0 - _MEAN_DECAY) / self.seen))
        if self.settings.estimator == "softsort":
            return PolicyStep(metrics=lambda: self._metrics(scores_BN))
        assert draw.log_prob_G is not None
        reward_MB = -outcome.loss_MB.detach().double().to(scores_BN.device)
        advantage_MB = self._advantages(reward_MB)
        log_prob_MB = draw.log_prob_G.view(reward_MB.shape)[: self.drawn]
        loss = -(advantage_MB * log_prob_MB).mean()
        return PolicyStep(
            loss=loss if loss.requires_grad else None,
            metrics=lambda: (
                self._metrics(scores_BN)
                | {
                    "reward": float(reward_MB[0].mean()),
                    "entropy": float(entropy_estimate(log_prob_MB)),
                    "advantage_std": float(advantage_MB.std(correction=0)),
                }
            ),
        )

    def _advantages(self, reward_MB: Tensor) -> Tensor:
        if self.settings.baseline == "greedy":
            return reward_MB[: self.drawn] - reward_MB[-1]
        if self.settings.baseline == "batch":
            return less_other_images(reward_MB)
        return leave_one_out(reward_MB, self.settings.antithetic)

    @torch.no_grad()
    def _metrics(self, scores_BN: Tensor) -> dict[str, float]:
        """kendall_tau_to_prior: of the order of the mean scores. kendall_tau_to_mean: of the images' own best orders to
        that one, 1 where all images are read alike. image_spread: of a patch's score between images."""
        some = max(1, min(len(scores_BN), _TAU_COMPARISONS // len(self.prior_N) ** 2))
        best_N, own_BN = self.best(), mode(scores_BN[:some], self.prior_N)
        return {
            "kendall_tau_to_prior": float(kendall_tau(best_N[None], self.prior_N)),
            "kendall_tau_to_mean": float(kendall_tau(own_BN, best_N).mean()),
            "image_spread": float(scores_BN.std(dim=0, correction=0).mean()),
        }
