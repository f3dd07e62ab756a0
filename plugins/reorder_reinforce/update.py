"""Updates in place, and averages of what they went through. P parameters of a curve, C curves, K orders."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class PlainStep(torch.nn.Module):
    """parameter ← parameter − rate · gradient / (running root mean square of the advantages).

    A sum of gradients in place of Adam's, in which each coordinate of each early step would count the same whatever
    the evidence in it. Dividing by the size of the advantages makes the rate independent of the scale of the losses.
    """

    square: Tensor
    weight: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("square", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))

    def take(self, loss: Tensor, advantage_K: Tensor, rated: Iterable[tuple[Tensor, float]]) -> None:
        """One step on `loss`. rated: each parameter and its rate, in units of the parameter.

        Where all advantages were 0 so far nothing moves.
        """
        parameters, rates = zip(*rated, strict=True)
        # The draw's log-probabilities stay usable. At temperature 0 only the weights of curves are in the graph.
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        with torch.no_grad():
            self.square.lerp_(advantage_K.square().mean().to(self.square), 1.0 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1.0 - self.decay)
            # a square that is 0 has gradients that are 0; the division must not make NaN of them
            scale = (self.square / self.weight).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
            for parameter, rate, gradient in zip(parameters, rates, gradients, strict=True):
                parameter.sub_((rate * gradient.double() / scale).to(parameter))


class IterateAverage(torch.nn.Module):
    """A running average of the learned part of the logits, in which step t weighs about t^power.

    mean ← mean + (1 + power) / (t + power) · (iterate − mean), t = 1, 2, …: it needs no horizon, and forgets the
    beginning by itself (Shamir & Zhang 2013, "Stochastic gradient descent for non-smooth optimization", section 4).
    """

    mean_CP: Tensor
    steps: Tensor

    def __init__(self, like_CP: Tensor, power: float) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("mean_CP", torch.zeros_like(like_CP, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, learned_CP: Tensor) -> None:
        self.steps += 1.0
        share = (1.0 + self.power) / (self.steps + self.power)
        self.mean_CP.add_(share * (learned_CP.detach().double() - self.mean_CP))
