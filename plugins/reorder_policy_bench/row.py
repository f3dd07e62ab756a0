"""A row of the results: one contender under one set of conditions, over the seeds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from reorder_policy_bench.contenders import Contender
from reorder_policy_bench.summary import LEVELS, end, reached
from reorder_policy_bench.trial import Conditions, Trial


@dataclass(frozen=True)
class Row:
    """reason: why it has no trials, or fewer than were asked for. peak_mebibytes: None where the system cannot say."""

    contender: Contender
    conditions: Conditions
    trials: tuple[Trial, ...] = ()
    reason: str = ""
    peak_mebibytes: float | None = None

    @property
    def seconds(self) -> float:
        """The policy's own seconds for all steps, mean over the seeds."""
        return sum(trial.looks[-1].seconds for trial in self.trials) / len(self.trials)

    def as_json(self, curves: bool) -> dict[str, Any]:
        """Plain values; with `curves` also what every look of every seed saw: [samples, seconds, reward]."""
        said: dict[str, Any] = {
            "policy": self.contender.name,
            "label": self.contender.label,
            "settings": json.loads(json.dumps(dict(self.contender.ref.settings), default=str)),
            **asdict(self.conditions),
            "state": "failed" if self.reason else "ok",
            "reason": self.reason,
            "seeds": [trial.seed for trial in self.trials],
        }
        if not self.trials:
            return said
        first = self.trials[0]
        said |= {
            "orders": first.orders,
            "samples_a_step": first.samples_a_step,
            "samples": first.samples_a_step * self.conditions.steps,
            "reached": [reached(self.trials, level).as_json() for level in LEVELS],
            "end": end(self.trials).as_json(),
            "seconds": self.seconds,
            "peak_mebibytes": self.peak_mebibytes,
        }
        if curves:
            said["curves"] = [
                [[look.step * trial.samples_a_step, look.seconds, look.reward] for look in trial.looks]
                for trial in self.trials
            ]
        return said
