"""Schedules as pure functions of one declared unit: the same step gives the same value, also after a resume.

A *shape* is a function of progress in [0, 1] with values in [0, 1]; `lr_factor` counts in optimiser steps and in
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from reorder_core.errors import UsageError, did_you_mean

Shape = Callable[[float], float]
ShapeName = Literal["constant", "linear", "cosine", "triangular"]


def constant(progress: float) -> float:
    """1 all the way."""
    return 1.0


def linear(progress: float) -> float:
    """From 1 at the start straight down to 0 at the end."""
    return 1.0 - _inside(progress)


def cosine(progress: float) -> float:
    """From 1 at the start down to 0 at the end along half a cosine: flat at both ends."""
    return 0.5 * (1.0 + math.cos(math.pi * _inside(progress)))


def triangular(progress: float) -> float:
    """From 0 at the start up to 1 in the middle and down to 0 at the end."""
    return 1.0 - abs(2.0 * _inside(progress) - 1.0)


SHAPES: Mapping[str, Shape] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "triangular": triangular,
}


def shape(name: str) -> Shape:
    """The shape with this name. Raises `UsageError` for a name that is none of `SHAPES`."""
    if name not in SHAPES:
        raise UsageError(
            f"no schedule is named '{name}': choose from {', '.join(SHAPES)}{did_you_mean(name, [*SHAPES])}"
        )
    return SHAPES[name]


def lr_factor(
    step: int,
    total: int,
    warm_up: float = 0,
    hold_until: float = 0,
    final: float = 0.0,
    shape: Literal["constant", "linear", "cosine"] = "cosine",
) -> float:
    """What the learning rate is multiplied by in optimiser step number `step` (0, 1, … total - 1).

    Up in a straight line over the first `warm_up` steps (1 / warm_up in step 0, 1 in step warm_up - 1), 1 until step
    number `hold_until` (while the policy learns, say), then along `shape` down to `final` in the last step.
    A hold that ends within the warm-up changes nothing. Everything is counted in optimiser steps; `warm_up` and
    `hold_until` may be fractions, as a part of an epoch gives them. Raises `UsageError` for an unknown shape and for
    one that does not start at 1.
    """
    fall = _falling(shape)
    if step < 0:
        raise ValueError(f"a step is counted from 0, not {step}")
    done = step + 1
    if done <= warm_up:
        return done / warm_up
    if step < warm_up:  # a warm-up that ends within a step
        return 1.0
    start = max(warm_up, hold_until)
    if done <= start or total <= start:
        return 1.0
    return final + (1.0 - final) * fall((done - start) / (total - start))


def _falling(name: str) -> Shape:
    found = shape(name)
    if found(0.0) != 1.0:
        raise UsageError(f"the learning rate cannot follow '{name}', which starts at 0: choose constant or cosine")
    return found


def _inside(progress: float) -> float:
    return min(1.0, max(0.0, progress))
