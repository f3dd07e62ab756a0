"""The policy `softsort`: N scores, sorted softly, learned through the gradient of the soft order.

B images of the whole batch, K orders, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_core import Clock, Context, Draw, Outcome, PolicyStep, UsageError
from reorder_core.permutation import kendall_tau
from reorder_core.schedule import shape
from reorder_softsort.drawn import SoftRead, hand_out
from reorder_softsort.lapsum import LapSumRows
from reorder_softsort.neuralsort import NeuralSortRows
from reorder_softsort.scores import falling, gumbel_noise, standardised
from reorder_softsort.settings import SoftOrderSettings, SoftSortSettings
from reorder_softsort.sharpness import row_peaks
from reorder_softsort.soft_order import MakeRows, SoftOrder
from reorder_softsort.softsort import SoftSortRows

_RELAXATIONS: dict[str, MakeRows] = {"softsort": SoftSortRows, "neuralsort": NeuralSortRows, "lapsum": LapSumRows}


class SoftOrderPolicy(torch.nn.Module):
    """Scores along a line of places; a subclass says which patch and which slot stand at each place.

    learned_N starts at 0, so that the first order is the prior exactly.
    """

    orders_per_image = 1
    learning_rate: float | None
    prior_N: Tensor

    def __init__(self, settings: SoftOrderSettings, context: Context, make: MakeRows) -> None:
        super().__init__()
        for problem in settings.contradictions(context.grid.size):
            raise UsageError(f"policy.{problem.key}: {problem.message}")
        if context.prior_N is None:
            raise UsageError("a soft sort needs an order to start from: name an ordering, or policy.prior")
        self.generator = context.generator
        self.common, self.make = settings, make
        self.register_buffer("prior_N", torch.as_tensor(context.prior_N, dtype=torch.int64).clone(), persistent=False)
        self.learned_N = torch.nn.Parameter(torch.zeros(context.grid.size))

    def line(self) -> tuple[Tensor, Tensor]:
        """The patches that stand along the line now, and the slots of these places, int64 [N] each."""
        return self.prior_N, torch.arange(len(self.prior_N), device=self.prior_N.device)

    def temperature(self, clock: Clock) -> float:
        """From `temperature` to `temperature_end` along the schedule while the policy learns, in slots; else 0."""
        if not clock.learning:
            return 0.0
        low, high = self.common.temperature_end, self.common.temperature
        return low + (high - low) * shape(self.common.schedule)(clock.progress)

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """K soft orders, each with noise of its own; at temperature 0 each is the hard order without noise."""
        k = self.common.orders
        if batch < k:
            raise UsageError(f"{k} orders do not fit a batch of {batch} images: lower policy.orders")
        scores_N = standardised(self.learned_N)
        if self.common.noise == 0.0:
            return hand_out((self._sorted(scores_N),), batch, temperature, self.make)
        scale = self.common.noise * temperature / self.common.temperature
        noise_KN = scale * gumbel_noise(k, len(scores_N), self.generator, scores_N.device)
        return hand_out(tuple(self._sorted(scores_N + noise_N) for noise_N in noise_KN), batch, temperature, self.make)

    @torch.no_grad()
    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """The hard order of the scores without noise; before the first update the prior itself."""
        return self._sorted(standardised(self.learned_N)).perm_N

    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """Nothing is left to do: the task's loss has reached the scores through the soft order."""
        return PolicyStep(metrics=lambda: self.metrics(draw))

    def _sorted(self, score_N: Tensor) -> SoftOrder:
        """Scores along the line to the order in which they stand."""
        patch_N, slot_N = self.line()
        falling_N, index_N = falling(score_N)
        return SoftOrder(falling_N, patch_N[index_N], slot_N)

    @torch.no_grad()
    def metrics(self, draw: Draw) -> dict[str, float]:
        """sharpness: the mean of the largest weight of each row, 1 for the hard order. row_collisions: how many rows
        are largest where another row is. gap: the median distance of neighbouring scores, in slots.
        kendall_tau_to_prior: of the best order."""
        assert isinstance(draw.soft, SoftRead)
        falling_N, tau = draw.soft.orders[0].falling_N.detach(), draw.soft.tau
        sharpness, collisions = 1.0, 0.0
        if tau > 0.0:
            place_N, peak_N = row_peaks(falling_N, tau, self.make)
            sharpness, collisions = float(peak_N.mean()), float(len(place_N) - len({*place_N.tolist()}))
        gap = (falling_N[:-1] - falling_N[1:]).median() if len(falling_N) > 1 else falling_N[0] * 0
        return {
            "sharpness": sharpness,
            "row_collisions": collisions,
            "gap": float(gap),
            "kendall_tau_to_prior": float(kendall_tau(self.best(), self.prior_N)),
        }


class SoftSort(SoftOrderPolicy):
    """See README.md for the equations. Every patch keeps its own score from the first step to the last."""

    def __init__(self, settings: SoftSortSettings, context: Context) -> None:
        super().__init__(settings, context, _RELAXATIONS[settings.relaxation])
        self.learning_rate = settings.learning_rate
