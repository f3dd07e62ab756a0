"""Accuracy over a split and by kind of question, with the mean loss; added up over processes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from torch import Tensor, distributed

from reorder_core import Batch, TaskResult

Sums = dict[str, tuple[float, int]]


class AccuracyByKind:
    """`accuracy`, `accuracy_<kind>` for each kind of question that was asked, and `loss`: means over questions."""

    def __init__(self, score: Callable[[TaskResult, Batch], Tensor]) -> None:
        self._score = score
        self._sums: Sums = {}

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Count one batch."""
        score_B = self._score(result, batch).tolist()
        loss_B = result.loss_B.detach().tolist()
        for question, score, loss in zip(batch.target, score_B, loss_B, strict=True):
            for name, value in ((named(question.kind), score), ("accuracy", score), ("loss", loss)):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = total + value, count + 1

    def compute(self) -> Mapping[str, float]:
        """Over all processes, each of which may have met other kinds."""
        together: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for sums in _of_all_processes(self._sums):
            for name, pair in sums.items():
                together[name].append(pair)
        kinds = sorted(name for name in together if name not in ("accuracy", "loss"))
        return {
            name: sum(total for total, _ in together[name]) / sum(count for _, count in together[name])
            for name in ("accuracy", *kinds, "loss")
        }

    def reset(self) -> None:
        """Forget every batch."""
        self._sums = {}


def _of_all_processes(own: Sums) -> list[Sums]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    everyone: list[Sums] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(everyone, own)
    return everyone


def named(kind: str) -> str:
    """The metric of a kind of question: letters, digits and `_` only."""
    return "accuracy_" + (re.sub(r"\W+", "_", kind.lower()).strip("_") or "other")
