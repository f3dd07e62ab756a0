"""What a model scores on a validation split: measured now in any order, or as a finished run wrote it down.

What commands of rooms compare orders by, without a training loop. S validation images, N patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import permutation
from reorder_core.layout import Layout
from reorder_core.opened import Opened


@dataclass(frozen=True)
class Evaluated:
    """metrics: of the whole split, `loss` among them. score_S: of each image, float [S], in the order of the split.

    primary: the metric by which runs are compared. score: what score_S is of, where its mean is not that metric.
    order_N: the order that was read, int64 [N].
    """

    metrics: Mapping[str, float]
    score_S: NDArray[Any]
    primary: str
    score: str
    higher_is_better: bool
    order_N: NDArray[np.int64]

    @property
    def value(self) -> float:
        """The primary metric; the mean score of an image where the metrics do not name it."""
        return float(self.metrics.get(self.primary, float(np.mean(self.score_S))))


def evaluated(opened: Opened, order_N: Any = None, tick: Callable[[], None] = lambda: None) -> Evaluated:
    """One pass over the validation split as a run validates itself, every image read in this one order.

    order_N: the order it ended with where left out; a backbone of several orders keeps its further ones. Precision,
    batch size and loader are the recipe's. tick: called after each batch. Raises `ReorderError` where it is no order
    of this grid.
    """
    from reorder_core.training.build import Learner
    from reorder_core.training.devices import make_accelerator
    from reorder_core.training.evaluate import evaluate
    from reorder_core.training.loader import Shares, own_validation_batches

    read_N = permutation.validate(opened.order_N if order_N is None else order_N, opened.grid.size)
    read_N = np.ascontiguousarray(read_N, dtype=np.int64)
    training, dataset, task = opened.recipe.training, opened.dataset, opened.task
    kind: Any = opened.device.type
    accelerator = make_accelerator(kind, training.precision)
    layout = Layout.fixed(opened.grid, torch.from_numpy(read_N)).to(accelerator.device)
    shares, images = Shares(accelerator.process_index, accelerator.num_processes), len(dataset.validation)
    batches = own_validation_batches(dataset, training, shares, pin=accelerator.device.type == "cuda")
    learner: Any = Learner(opened.model, task)
    found = evaluate(learner, batches, lambda batch: layout, accelerator, shares, images, tick=tick)
    return Evaluated(
        metrics=found.metrics,
        score_S=found.score_S,
        primary=task.primary,
        score=getattr(task, "score", task.primary),
        higher_is_better=task.higher_is_better,
        order_N=read_N,
    )


def evaluated_run(folder: Path | str) -> Evaluated:
    """The last validation of a finished run, as its folder has it. Raises `UsageError` where it is no finished run."""
    from reorder_core.training.report import RunResult

    result = RunResult.load(Path(folder))
    return Evaluated(
        metrics=result.metrics,
        score_S=result.score_B,
        primary=result.primary,
        score=result.score,
        higher_is_better=result.higher_is_better,
        order_N=result.order,
    )
