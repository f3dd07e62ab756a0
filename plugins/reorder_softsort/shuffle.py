"""The policy `shuffle_softsort`: rounds of soft sorts along shuffled lines (Barthel et al. 2025, algorithm 1).

N slots or patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_core import Context, Draw, Outcome, PolicyStep
from reorder_softsort.policy import SoftOrderPolicy
from reorder_softsort.settings import ShuffleSoftSortSettings
from reorder_softsort.softsort import SoftSortRows

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class ShuffleSoftSort(SoftOrderPolicy):
    """SoftSort moves a patch past its neighbours on a line. Here the line is another one every few steps.

    A round lays the slots out along a shuffled line, starts its scores as an even ramp, lets the gradient sort the
    patches along that line for `steps` steps, and keeps the hard order that came of it. So patches far from each other
    in the sequence change places in one round, with N parameters and without ever passing what stands between them.

    Each round starts an Adam of its own, as the paper's does: moments of the line before would push the wrong places.
    The run's optimiser therefore finds no gradient here, and the steps are taken in `observe`.
    """

    order_N: Tensor
    line_N: Tensor
    taken: Tensor
    mean_N: Tensor
    square_N: Tensor

    def __init__(self, settings: ShuffleSoftSortSettings, context: Context) -> None:
        super().__init__(settings, context, SoftSortRows)
        self.settings = settings
        self.learning_rate = settings.learning_rate
        self.register_buffer("order_N", self.prior_N.clone())
        self.register_buffer("line_N", self._shuffled_line(0.0))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean_N", torch.zeros_like(self.learned_N.data))
        self.register_buffer("square_N", torch.zeros_like(self.learned_N.data))

    def line(self) -> tuple[Tensor, Tensor]:
        return self.order_N[self.line_N], self.line_N

    @torch.no_grad()
    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """Take the round's next step with the gradient that has arrived, and begin a new round after the last.

        The gradient is used up here. Where none has arrived, as at temperature 0, nothing changes.
        """
        if self.learned_N.grad is not None:
            self._step(self.learned_N.grad)
            self.learned_N.grad = None
            if int(self.taken) >= self.settings.steps:
                self._begin_round(outcome.clock.progress)
        return PolicyStep(metrics=lambda: self.metrics(draw))

    def _step(self, grad_N: Tensor) -> None:
        """One step of Adam (Kingma & Ba 2015, algorithm 1)."""
        self.taken += 1
        count, (first, second) = int(self.taken), _BETAS
        self.mean_N.lerp_(grad_N, 1.0 - first)
        self.square_N.lerp_(grad_N.square(), 1.0 - second)
        mean_N, square_N = self.mean_N / (1.0 - first**count), self.square_N / (1.0 - second**count)
        self.learned_N.sub_(self.settings.learning_rate * mean_N / (square_N.sqrt() + _EPSILON))

    def _begin_round(self, progress: float) -> None:
        self.order_N.copy_(self.best())
        for state in (self.learned_N, self.mean_N, self.square_N, self.taken):
            state.zero_()
        self.line_N.copy_(self._shuffled_line(progress))

    def _shuffled_line(self, progress: float) -> Tensor:
        """Slots in the order of their number plus noise: up to `shuffle` of the sequence apart, int64 [N]."""
        n = len(self.prior_N)
        share = self.settings.shuffle + (self.settings.shuffle_end - self.settings.shuffle) * progress
        if share >= 1.0:
            line_N = torch.randperm(n, generator=self.generator)
        else:
            noise_N = torch.rand(n, generator=self.generator, dtype=torch.float64)
            line_N = (torch.arange(n) + share * (n + 1) * noise_N).argsort()
        return line_N.to(self.prior_N.device)
