"""The policy `curriculum`: the order in which a model reads changes while it trains, from a start to an end.

B images of the whole batch, G orders, N patches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reorder_core import Clock, ComponentRef, Context, Draw, Outcome, PolicyStep, UsageError
from reorder_core.permutation import kendall_tau, validate
from reorder_curriculum.path import blend, settle, settled_slots
from reorder_curriculum.timing import learner_clock, weight_of_end

if TYPE_CHECKING:
    from reorder_curriculum.settings import CurriculumSettings

_WAITING, _LEARNING, _MOVING = 0, 1, 2


class Curriculum(nn.Module):
    """Three stages: before the first update the prior; with a learner its share of the phase; then the move.

    In the move the temperature is the part of the way that is left, from 1 down to 0: with random orders the
    probability of one, between two orders one less the weight of the end. Without a learner every draw is a pure
    function of the clock, and of the generator where orders are random.
    """

    prior_N: Tensor
    stage: Tensor
    weight: Tensor

    def __init__(self, settings: CurriculumSettings, context: Context) -> None:
        super().__init__()
        for problem in settings.contradictions(context.grid.size):
            raise UsageError(f"policy.{problem.key}: {problem.message}")
        if context.prior_N is None:
            raise UsageError("the policy curriculum needs an order to start from: name an ordering, or policy.prior")
        self.settings = settings
        self._generator = context.generator
        self.register_buffer("prior_N", torch.tensor(context.prior_N, dtype=torch.int64), persistent=False)
        self.register_buffer("start_N", _named(settings.starts_from, "start", context), persistent=False)
        self.register_buffer("end_N", _named(settings.end, "end", context), persistent=False)
        self.register_buffer("stage", torch.tensor(_WAITING))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))
        self.learner: Any = None if settings.learner is None else context.resolve(settings.learner)

    @property
    def is_learning(self) -> bool:
        """Whether the learner has the word: there is one, and its share of the phase is not over."""
        return self.learner is not None and int(self.stage) < _MOVING

    @property
    def orders_per_image(self) -> int:
        """The learner's while it learns; 1 in the move."""
        return int(self.learner.orders_per_image) if self.is_learning else 1

    @property
    def reads_tokens(self) -> bool:
        """Whether the learner wants to see the images, while it learns."""
        return self.is_learning and bool(getattr(self.learner, "reads_tokens", False))

    @property
    def learning_rate(self) -> float | None:
        """The learner's; None without one."""
        rate: float | None = None if self.learner is None else self.learner.learning_rate
        return rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The learner's, as it groups them."""
        if self.learner is None:
            return []
        own = getattr(self.learner, "parameter_groups", None)
        return [{"params": list(self.learner.parameters())}] if own is None else list(own())

    def temperature(self, clock: Clock) -> float:
        """The learner's in its share; in the move, the part of the way that is left; 0 outside of the phase."""
        if not clock.learning:
            return 0.0
        inner = learner_clock(self.settings, clock)
        return float(self.learner.temperature(inner)) if inner.learning else 1.0 - weight_of_end(self.settings, clock)

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """The learner's draw; or random orders among the end; or one order on the way for all images."""
        if self.is_learning:
            drawn: Draw = self.learner.draw(batch, tokens_BND, temperature)
            return drawn
        if self.settings.starts_from == "random_each_batch":
            return self._some_random(batch, probability=temperature)
        perm_1N = self.order_at(1.0 - temperature)[None]
        return Draw(perm_1N, torch.zeros(batch, dtype=torch.int64, device=perm_1N.device))

    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """The prior before the first update, the learner's best while it learns, then where the move stands: int64 [N],
        and [B, N] as long as a learner that looks at the images has the word and `tokens_BND` are shown.

        That is the end itself once the phase is over, and wherever the start is random.
        """
        if int(self.stage) == _WAITING:
            if self.reads_tokens and tokens_BND is not None:
                return self.prior_N.expand(len(tokens_BND), -1).clone()
            return self.prior_N.clone()
        if self.is_learning:
            best_N: Tensor = self.learner.best(tokens_BND)
            return best_N
        return self.order_at(float(self.weight))

    @torch.no_grad()
    def order_at(self, weight: float) -> Tensor:
        """The order when `weight` of the way is gone, int64 [N]; with a random start the end at any weight."""
        end_N = self._end()
        if self.settings.starts_from == "random_each_batch":
            return end_N
        start_N = self.learner.best(None) if self.start_N is None else self.start_N
        if self.settings.path == "blend":
            return blend(start_N, end_N, weight)
        settled = settled_slots(weight, self.settings.slots, len(end_N))
        return settle(start_N, end_N, settled, from_the_back=self.settings.path == "back")

    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """Let the learner learn in its share, and note where the next step will stand."""
        after = replace(outcome.clock, step=outcome.clock.step + 1)
        inner = learner_clock(self.settings, outcome.clock)
        done = self.learner.observe(draw, replace(outcome, clock=inner)) if self.is_learning else None
        goes_on = self.learner is not None and after.step < inner.learn_stop
        self.stage.fill_(_LEARNING if goes_on else _MOVING)
        self.weight.fill_(0.0 if goes_on else weight_of_end(self.settings, after))
        return PolicyStep(metrics=lambda: self._metrics(draw)) if done is None else done

    def _some_random(self, batch: int, probability: float) -> Draw:
        """Each draw is a random order with this probability, else the end (Yu et al. 2024, section 3.2)."""
        end_1N = self._end()[None]
        count = min(self.settings.orders or batch, batch)
        is_random_K = torch.rand(count, generator=self._generator) < probability
        wanted = int(is_random_K.sum())
        random_GN = torch.rand(wanted, end_1N.shape[1], generator=self._generator, dtype=torch.float64).argsort(1)
        group_K = torch.where(is_random_K, is_random_K.cumsum(0), 0)
        group_B = group_K[torch.arange(batch) % count]
        device = end_1N.device
        return Draw(torch.cat([end_1N, random_GN.to(device)]), group_B.to(device))

    def _end(self) -> Tensor:
        if self.end_N is not None:
            return self.end_N.clone()
        if self.settings.end == "prior":
            return self.prior_N.clone()
        learned_N: Tensor = self.learner.best(None).detach()
        return learned_N.flip(0) if self.settings.end == "learned_reversed" else learned_N

    def _metrics(self, draw: Draw) -> dict[str, float]:
        end_N = self._end()
        return {
            "weight_of_end": float(self.weight),
            "share_in_end": float((draw.perm_GN == end_N).all(1)[draw.group_B].double().mean()),
            "kendall_tau_to_end": float(kendall_tau(draw.perm_GN[draw.group_B], end_N[None]).mean()),
            "kendall_tau_to_prior": float(kendall_tau(self.best(), self.prior_N)),
        }


def _named(place: ComponentRef | str, key: str, context: Context) -> Tensor | None:
    """The order of a named ordering, int64 [N]; None for a word, whose order is not known yet (or never)."""
    if isinstance(place, str):
        return None
    ordering = context.resolve(place)
    if hasattr(ordering, "fit"):
        raise UsageError(
            f"policy.{key}: '{place.name}' learns from images, which a nested ordering is never shown: "
            f"name it as policy.prior, or save its order and name {{name: file, path: …}}"
        )
    order_N = validate(ordering.permutation(context.grid), context.grid.size, f"policy.{key}")
    return torch.tensor(order_N, dtype=torch.int64)
