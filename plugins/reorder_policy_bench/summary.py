"""What several seeds say together: how soon a level was reached, how good the end was, and how sure that is.

S seeds, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reorder_policy_bench.trial import Trial

LEVELS = (0.8, 0.95)  # of the optimum
_RESAMPLES = 2000


@dataclass(frozen=True)
class Middle:
    """A value over the seeds with its 95 % percentile bootstrap interval; None stands for 'not reached'."""

    value: float | None
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Reached:
    """How soon a level was reached for good: medians over the seeds. seeds: how many reached it, of those that ran."""

    level: float
    seeds: int
    samples: Middle
    seconds: Middle

    def as_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "seeds": self.seeds,
            "samples": self.samples.as_json(),
            "seconds": self.seconds.as_json(),
        }


def reached(trials: Sequence[Trial], level: float) -> Reached:
    """Median samples and seconds to the level; a seed that did not reach it counts as later than all others."""
    looks = [trial.reached(level) for trial in trials]
    samples_S = [
        math.inf if look is None else float(look.step * trial.samples_a_step)
        for look, trial in zip(looks, trials, strict=True)
    ]
    seconds_S = [math.inf if look is None else look.seconds for look in looks]
    return Reached(level, sum(look is not None for look in looks), _middle(samples_S), _middle(seconds_S))


def end(trials: Sequence[Trial]) -> Middle:
    """The mean over the seeds of the reward of the best order at the end."""
    value_S = np.array([trial.looks[-1].reward for trial in trials])
    low, high = np.percentile(_resampled(value_S).mean(axis=1), [2.5, 97.5])
    return Middle(float(value_S.mean()), float(low), float(high))


def _middle(values: Sequence[float]) -> Middle:
    """The median (the upper of two) and its interval: values that seeds had, so that infinity stays what it is."""
    value_S = np.array(values)
    median_R = np.quantile(_resampled(value_S), 0.5, axis=1, method="higher")
    found = [
        np.quantile(value_S, 0.5, method="higher"),
        *np.quantile(median_R, [0.025, 0.975], method="inverted_cdf"),
    ]
    return Middle(*(float(value) if math.isfinite(value) else None for value in found))


def _resampled(value_S: np.ndarray) -> np.ndarray:
    """Seeds drawn with replacement, [R, S]."""
    return value_S[np.random.default_rng(0).integers(0, len(value_S), size=(_RESAMPLES, len(value_S)))]
