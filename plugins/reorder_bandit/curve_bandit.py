"""The policy `curve_bandit`: a multi-armed bandit whose arms are whole orders.

B images of the whole batch, M orders an image, K orders drawn, A arms, N patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reorder_bandit.arms import arms
from reorder_bandit.batch import effects, reads, share_out
from reorder_bandit.evidence import Evidence
from reorder_bandit.start import known_curves, prior_order, refuse_contradictions
from reorder_core import Clock, Context, Draw, Outcome, PolicyStep
from reorder_core.permutation import kendall_tau
from reorder_core.schedule import shape

if TYPE_CHECKING:
    from reorder_bandit.settings import CurveBanditSettings

#: How much of the running mean square of effects stays at each step.
_SCALE_DECAY = 0.99


class CurveBandit(nn.Module):
    """Chooses among the prior, named curves and their mirror images; see README.md for the two rules.

    Its orders come out of the list of arms only, so it can find an order that keeps neighbours together, which no
    distribution that says early or late can; and it can find nothing else.
    """

    learning_rate: float | None = None
    orders_AN: Tensor
    preference_A: Tensor
    scale: Tensor

    def __init__(self, settings: CurveBanditSettings, context: Context) -> None:
        super().__init__()
        refuse_contradictions(settings)
        self.settings = settings
        self.orders_per_image = settings.orders_per_image
        self._generator = context.generator
        found = arms(
            prior_order("curve_bandit", context),
            known_curves(settings.curves, context),
            context.grid,
            settings.variants,
        )
        self.names = found.names
        self.register_buffer("orders_AN", torch.from_numpy(found.orders_AN), persistent=False)
        self.evidence = Evidence(len(found.names), settings.discount)
        self.register_buffer("preference_A", torch.zeros(len(found.names), dtype=torch.float64))
        self.register_buffer("scale", torch.zeros((), dtype=torch.float64))

    def temperature(self, clock: Clock) -> float:
        """How much is explored at this step: `exploration` along its schedule while the policy learns, else 0."""
        return self.settings.exploration * shape(self.settings.schedule)(clock.progress) if clock.learning else 0.0

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """The K arms that the rule chooses, in a succession of chance; image i reads arm i % K."""
        k = self.settings.orders
        if self.settings.rule == "ucb":
            chosen_K = self._by_bounds(temperature, reads_of_one=batch * self.orders_per_image / k)
        else:
            chosen_K = self._by_softmax(temperature)
        chosen_K = chosen_K[torch.randperm(len(chosen_K), generator=self._generator)].to(self.orders_AN.device)
        draw = share_out(self.orders_AN[chosen_K], batch, self.orders_per_image, self._generator)
        return Draw(draw.perm_GN, draw.group_B, draw.extra_MB, aux=chosen_K)

    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """The order of the best arm; of the prior before the first update, and wherever it is level with the best."""
        return self.orders_AN[self.best_arm()].clone()

    def best_arm(self) -> int:
        """Its number in `names`: the highest preference, or the highest value less its standard error (ucb)."""
        if self.settings.rule == "gradient":
            return int(self.preference_A.argmax())
        read_A = self.evidence.reads_A
        if not bool(read_A.any()):
            return 0
        sure_A = self.evidence.values() - self.evidence.noise() / read_A.sqrt()
        return int(sure_A.where(read_A > 0, -torch.inf).argmax())

    @torch.no_grad()
    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """Add the batch to what is known of its arms; no loss."""
        reward_MB = -outcome.loss_MB.detach().double().to(self.orders_AN.device)
        group_MB, arm_K = reads(draw), draw.aux
        self.evidence.add(reward_MB, arm_K[group_MB])
        if self.settings.rule == "gradient":
            self._follow(effects(reward_MB, group_MB, len(arm_K)), arm_K, self.temperature(outcome.clock))
        return PolicyStep(metrics=lambda: self._metrics(arm_K, reward_MB))

    def _by_bounds(self, width: float, reads_of_one: float) -> Tensor:
        """UCB1 (Auer et al. 2002), a batch at a time: each choice counts as read before the next is made.

            index_a = value_a + width · noise · √( ln(1 + reads of all) / reads of a )

        Without that a batch would be K times the same arm (Desautels, Krause & Burdick 2014). Arms that were never
        read come first, among them the prior before all others.
        """
        k, evidence = self.settings.orders, self.evidence
        if width <= 0.0:
            return torch.full((k,), self.best_arm())
        value_A, noise, read_A = evidence.values().cpu(), evidence.noise().cpu(), evidence.reads_A.cpu().clone()
        tie_A = 1 + torch.randperm(len(read_A) - 1, generator=self._generator)
        tie_A = torch.cat([torch.zeros(1, dtype=torch.int64), tie_A])
        chosen_K = torch.empty(k, dtype=torch.int64)
        for place in range(k):
            bonus_A = width * noise * (read_A.sum().log1p() / read_A).sqrt()
            index_A = (value_A + bonus_A).where(read_A > 0, torch.inf)
            chosen_K[place] = tie_A[index_A[tie_A].argmax()]
            read_A[chosen_K[place]] += reads_of_one
        return chosen_K

    def _by_softmax(self, temperature: float) -> Tensor:
        """K arms drawn with replacement by softmax(preference / temperature); at 0 K times the best arm."""
        if temperature <= 0.0:
            return torch.full((self.settings.orders,), self.best_arm())
        weight_A = (self.preference_A.cpu() / temperature).softmax(0)
        return torch.multinomial(weight_A, self.settings.orders, replacement=True, generator=self._generator)

    def _follow(self, effect_K: Tensor, arm_K: Tensor, temperature: float) -> None:
        """The gradient bandit (Sutton & Barto 2018, eq. 2.12), for K arms at once:

            preference += step_size · mean_k  effect_k / scale · (onehot(arm_k) − softmax(preference / temperature))

        An effect is centred on the other orders of its batch, and scale is the effects' running root mean square, so
        that step_size has no unit.
        """
        square, old = effect_K.square().mean(), self.scale.square()
        self.scale.copy_((_SCALE_DECAY * old + (1.0 - _SCALE_DECAY) * square if old > 0 else square).sqrt())
        if temperature <= 0.0 or self.scale <= 0:
            return
        step_K = self.settings.step_size * effect_K / self.scale / len(arm_K)
        weight_A = (self.preference_A / temperature).softmax(0)
        self.preference_A.index_add_(0, arm_K, step_K)
        self.preference_A.sub_(weight_A * step_K.sum())

    def _metrics(self, arm_K: Tensor, reward_MB: Tensor) -> dict[str, float]:
        best = self.best_arm()
        best_N, prior_N = self.orders_AN[best], self.orders_AN[0]
        return {
            "reward": float(reward_MB[0].mean()),
            "best_arm": best,
            "share_of_best": float((arm_K == best).double().mean()),
            "arms_read": int((self.evidence.reads_A > 0).sum()),
            "lead_over_prior": float(self.evidence.values()[best] - self.evidence.values()[0]),
            "noise": float(self.evidence.noise()),
            "kendall_tau_to_prior": float(kendall_tau(best_N, prior_N)),
        }
