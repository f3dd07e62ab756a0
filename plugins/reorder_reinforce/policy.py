"""The policy `reinforce`: a Plackett-Luce distribution over orders, or a mixture of several, learned by REINFORCE.

B images of the whole batch, K drawn orders, C curves (mixture components), M orders an image, N patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reorder_core import Clock, Context, Draw, Outcome, PolicyStep, UsageError
from reorder_core.plackett_luce import (
    entropy_estimate,
    gumbel_top_k,
    kendall_tau,
    mode,
    plackett_luce_log_prob,
    uniform_noise,
)
from reorder_core.schedule import shape
from reorder_reinforce.earliness import rank_evidence
from reorder_reinforce.estimator import (
    ImageAverage,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    group_mean,
    within_images,
)
from reorder_reinforce.logits import CurveLogits
from reorder_reinforce.replay import Replay
from reorder_reinforce.settings import ReinforceSettings
from reorder_reinforce.update import IterateAverage, PlainStep

#: Kendall τ is read from as many of the drawn orders as cost this many comparisons, and from one at least.
_TAU_COMPARISONS = 400_000


@dataclass(frozen=True, slots=True)
class Drawn:
    """What `observe` needs of a draw: curve_K, the component of each order; evidence_K, what its advantage multiplies
    (log p(order | curve), or the rank statistic); temperature, that it was drawn at."""

    curve_K: Tensor
    evidence_K: Tensor
    temperature: float


class Reinforce(torch.nn.Module):
    """See README.md for the equations; `faithful` turns it into the paper's or the released code's estimator."""

    priors_CN: Tensor

    def __init__(self, settings: ReinforceSettings, context: Context) -> None:
        super().__init__()
        for problem in settings.contradictions(context.grid.size):
            raise UsageError(f"policy.{problem.key}: {problem.message}")
        self.settings = settings
        self.generator = context.generator
        self.learning_rate = settings.learning_rate
        self.orders_per_image = settings.orders_per_image + (settings.image_control == "mode_loss")
        self.register_buffer("priors_CN", _priors(settings, context), persistent=False)
        coefficients = settings.coefficients if settings.logits == "dct" else None
        self.logits = CurveLogits(context.grid, self.priors_CN, settings.spread, coefficients)
        curves = self.priors_CN.shape[0]
        self.curve_logits_C = torch.nn.Parameter(torch.zeros(curves)) if curves > 1 else None
        self.baseline = _baseline(settings)
        self.image_average = _image_average(settings, context)
        self.plain = PlainStep(settings.ema_decay) if settings.update == "plain" else None
        average = settings.average
        self.average = None if average is None else IterateAverage(self.logits.learned_CP, average)
        kept, patches = settings.reuse - 1, context.grid.size
        self.replay = Replay(kept, settings.orders, patches, settings.clip) if kept else None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the run's optimiser updates, at which rate: the logits of the orders, and the weights of the curves.

        Nothing with `update: plain`, where `observe` does it in place.
        """
        return [] if self.plain is not None else self._rates()

    def _rates(self) -> list[dict[str, Any]]:
        orders: dict[str, Any] = {"params": list(self.logits.parameters())}
        if self.curve_logits_C is None:
            return [orders]
        rate = self.settings.curve_learning_rate
        return [orders, {"params": [self.curve_logits_C], **({} if rate is None else {"lr": rate})}]

    def temperature(self, clock: Clock) -> float:
        """The schedule's shape times the peak while the policy learns, else 0."""
        if not clock.learning:
            return 0.0
        progress = clock.progress
        if self.settings.faithful == "released":  # counted in steps, but advanced once an epoch
            epochs = (clock.step - clock.learn_start) // clock.steps_per_epoch
            progress = epochs / max(1, clock.learn_stop - clock.learn_start)
        return self.settings.temperature * shape(self.settings.schedule)(progress)

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """K orders; image i reads order i % K, and its further rows read the orders after that one.

        At temperature 0 each order is the mode of its curve. With image_control: mode_loss, one more order, the
        current best, stands last, and the last row of `extra_MB` reads all images in it.
        """
        k = self.settings.orders
        if batch < k:
            raise UsageError(f"{k} orders do not fit a batch of {batch} images: lower policy.orders")
        with torch.no_grad():
            logits_CN = self.logits()
            curve_K = self._curves(k, logits_CN.device)
            noise_KN = uniform_noise(k, logits_CN.shape[1], self.generator, self.settings.antithetic)
            if temperature > 0.0:
                perm_KN = gumbel_top_k(logits_CN[curve_K] / temperature, noise_KN)
            else:
                perm_KN = self._modes()[curve_K]
        return self.hand_out(batch, curve_K, perm_KN, temperature)

    def hand_out(self, batch: int, curve_K: Tensor, perm_KN: Tensor, temperature: float) -> Draw:
        """The draw in which these orders were sampled from these curves: scores them and shares them out."""
        k = self.settings.orders
        order_log_prob_K = self._order_log_prob(curve_K, perm_KN, temperature)
        log_prob_K = order_log_prob_K + self._curve_log_prob_C()[curve_K]
        evidence_K = order_log_prob_K
        if self.settings.estimator == "rank" and temperature > 0.0:
            evidence_K = rank_evidence(self.logits()[curve_K], perm_KN)
        image_B = torch.arange(batch, device=perm_KN.device)
        rows = [(image_B + row) % k for row in range(self.settings.orders_per_image)]
        if self.settings.image_control == "mode_loss":
            best_1N, curve_1 = self.best()[None], self._best_curve()
            perm_KN = torch.cat([perm_KN, best_1N])
            best_1 = self._order_log_prob(curve_1, best_1N, temperature) + self._curve_log_prob_C()[curve_1]
            log_prob_K = torch.cat([log_prob_K, best_1.detach()])
            rows.append(torch.full_like(image_B, k))
        return Draw(
            perm_GN=perm_KN,
            group_B=rows[0],
            extra_MB=torch.stack(rows[1:]) if rows[1:] else None,
            log_prob_G=log_prob_K,
            aux=Drawn(curve_K, evidence_K, temperature),
        )

    @torch.no_grad()
    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """The mode of the most probable curve; before the first update the prior itself (curve 0 wins a tie).

        With `average`, the mode of the averaged logits.
        """
        averaged = None if self.average is None else self.average.mean_CP
        return self._modes(averaged)[self._best_curve()[0]]

    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """The REINFORCE loss −Σ advantage · log p / K, whose gradient is an unbiased estimate of −∇ expected reward.

        `estimator: rank` and `reuse` put something else in its place, and `update: plain` takes the step here.
        """
        k, m = self.settings.orders, self.settings.orders_per_image
        loss_MB = outcome.loss_MB.detach().double().to(self.priors_CN.device)
        group_MB = draw.group_B[None] if m == 1 else torch.cat([draw.group_B[None], draw.extra_MB[: m - 1]])  # type: ignore[index]
        reward_MB = self._control_B(loss_MB, outcome.index_B) - loss_MB[:m]
        reward_K = group_mean(reward_MB, group_MB, k)
        if m > 1 and isinstance(self.baseline, LeaveOneOut):
            advantage_K = within_images(reward_MB, group_MB, k)
        else:
            advantage_K = self.baseline.advantages(reward_K)
        loss = self._loss(draw, reward_K, advantage_K)
        modes_CN = self._modes() if self.plain is not None else None  # as they were before the step
        carried = self._step_in_place(loss, advantage_K)
        return PolicyStep(
            loss=carried,
            metrics=lambda: self._metrics(draw, -loss_MB[0].mean(), advantage_K, modes_CN),
        )

    def _step_in_place(self, loss: Tensor, advantage_K: Tensor) -> Tensor | None:
        """Take the plain step, where there is one, and average; returns the loss that is left to the optimiser."""
        if self.plain is not None and loss.requires_grad:
            rate = self.settings.learning_rate
            rated = [(p, group.get("lr", rate)) for group in self._rates() for p in group["params"]]
            self.plain.take(loss, advantage_K, rated)
        if self.average is not None:
            self.average.update(self.logits.learned_CP)
        return loss if self.plain is None and loss.requires_grad else None

    def _loss(self, draw: Draw, reward_K: Tensor, advantage_K: Tensor) -> Tensor:
        assert draw.log_prob_G is not None
        if self.settings.curve_draws == "sampled" or self.curve_logits_C is None:
            if self.settings.estimator == "rank":
                evidence_K = draw.aux.evidence_K + self._curve_log_prob_C()[draw.aux.curve_K]
            else:
                evidence_K = draw.log_prob_G[: len(advantage_K)]
            return self._with_replay(-(advantage_K * evidence_K).mean(), draw, advantage_K)
        # Stratified: Σ_c w_c · E[reward | c] with the weights inside the gradient, so that no curve is sampled.
        weight_K = self.curve_logits_C.double().softmax(0)[draw.aux.curve_K] * len(self.priors_CN)
        order_K = weight_K.detach() * advantage_K * draw.aux.evidence_K
        loss: Tensor = -(weight_K * reward_K + order_K).mean()
        return loss

    def _with_replay(self, loss: Tensor, draw: Draw, advantage_K: Tensor) -> Tensor:
        """The mean of this batch's loss and those of the batches kept; this batch is then kept itself."""
        temperature = draw.aux.temperature
        if self.replay is None or temperature <= 0.0:
            return loss

        def log_prob(curve_G: Tensor, perm_GN: Tensor) -> Tensor:
            return self._order_log_prob(curve_G, perm_GN, temperature) + self._curve_log_prob_C()[curve_G]

        objective, kept = self.replay.objective(log_prob)
        k = len(advantage_K)
        self.replay.keep(draw.aux.curve_K, draw.perm_GN[:k], draw.log_prob_G[:k], advantage_K)  # type: ignore[index]
        return (loss - objective) / (1 + kept)

    def _curves(self, k: int, device: torch.device) -> Tensor:
        curves = self.priors_CN.shape[0]
        if self.curve_logits_C is None or self.settings.curve_draws == "stratified":
            return torch.arange(k, device=device) % curves
        weight_C = self.curve_logits_C.detach().double().softmax(0).cpu()
        return torch.multinomial(weight_C, k, replacement=True, generator=self.generator).to(device)

    def _best_curve(self) -> Tensor:
        if self.curve_logits_C is None:
            return torch.zeros(1, dtype=torch.int64, device=self.priors_CN.device)
        best: Tensor = (self.curve_logits_C >= self.curve_logits_C.max()).nonzero()[0]
        return best

    def _order_log_prob(self, curve_K: Tensor, perm_KN: Tensor, temperature: float) -> Tensor:
        logits_CN: Tensor = self.logits()
        if temperature <= 0.0:  # each order is certain
            return logits_CN.new_zeros(len(curve_K))
        logits = logits_CN[0] if len(logits_CN) == 1 else logits_CN[curve_K]
        scored_at = 1.0 if self.settings.faithful else temperature  # the paper scores at 1 what it sampled at τ
        return plackett_luce_log_prob(logits / scored_at, perm_KN)

    def _curve_log_prob_C(self) -> Tensor:
        if self.curve_logits_C is None:
            return torch.zeros(1, dtype=torch.float64, device=self.priors_CN.device)
        return self.curve_logits_C.double().log_softmax(0)

    def _modes(self, learned_CP: Tensor | None = None) -> Tensor:
        logits_CN = self.logits(learned_CP).detach()
        return torch.stack(
            [mode(logits_N, prior_N) for logits_N, prior_N in zip(logits_CN, self.priors_CN, strict=True)]
        )

    def _control_B(self, loss_MB: Tensor, index_B: Tensor) -> Tensor:
        if self.settings.image_control == "mode_loss":
            return loss_MB[-1]
        if self.image_average is None:
            return torch.zeros_like(loss_MB[0])
        index_B = index_B.to(loss_MB.device)
        control_B = self.image_average.control(index_B)
        self.image_average.update(index_B, loss_MB[: self.settings.orders_per_image].mean(0))
        return control_B

    @torch.no_grad()
    def _metrics(
        self, draw: Draw, reward: Tensor, advantage_K: Tensor, modes_CN: Tensor | None = None
    ) -> dict[str, float]:
        k = len(advantage_K)
        some = max(1, min(k, _TAU_COMPARISONS // self.priors_CN.shape[1] ** 2))
        modes_CN = self._modes() if modes_CN is None else modes_CN
        best_N = self.best()
        curve_G = draw.aux.curve_K[:some]
        metrics = {
            "reward": reward,
            "entropy": entropy_estimate(draw.log_prob_G[:k]),  # type: ignore[index]
            "sharpness": kendall_tau(draw.perm_GN[:some], modes_CN[curve_G]).mean(),
            "kendall_tau_to_prior": kendall_tau(best_N[None], self.priors_CN[0]).mean(),
            "advantage_std": advantage_K.std(correction=0),
        }
        if isinstance(self.baseline, MovingAverage):
            metrics["baseline"] = self.baseline.mean
        if self.curve_logits_C is not None:
            weight_C = self.curve_logits_C.double().softmax(0)
            metrics |= {f"curve_{number}": weight for number, weight in enumerate(weight_C)}
        return {name: float(value) for name, value in metrics.items()}


def _priors(settings: ReinforceSettings, context: Context) -> Tensor:
    if context.prior_N is None:
        raise UsageError("the policy reinforce needs an order to start from: name an ordering, or policy.prior")
    orders = [context.prior_N, *(context.resolve(ref).permutation(context.grid) for ref in settings.curves)]
    priors_CN = torch.stack([torch.as_tensor(order, dtype=torch.int64) for order in orders])
    # The released code gathered its first logits by the order, which starts it from the inverse.
    return priors_CN.argsort(dim=1) if settings.faithful == "released" else priors_CN


def _baseline(settings: ReinforceSettings) -> NoBaseline | LeaveOneOut | MovingAverage:
    if settings.baseline == "leave_one_out":
        return LeaveOneOut(settings.orders, settings.antithetic)
    return MovingAverage(settings.ema_decay) if settings.baseline == "ema" else NoBaseline()


def _image_average(settings: ReinforceSettings, context: Context) -> ImageAverage | None:
    if settings.image_control != "image_ema":
        return None
    if context.data is None or context.data.train is None:
        raise UsageError("policy.image_control: image_ema needs a data set that knows its number of training images")
    return ImageAverage(context.data.train, settings.ema_decay)
