"""How the output and the score change when the order does.

B images, K orders, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core import Batch
from reorder_core.bootstrap import Interval, paired_bootstrap
from reorder_core.opened import Opened
from reorder_sensitivity.orders import Tried
from reorder_sensitivity.reading import read

Tick = Callable[[], None]


@dataclass(frozen=True)
class Reaction:
    """What one kind of order does to a model, against its own order.

    output: mean over orders and images of |summary - own summary| / |own summary|. spread: its standard deviation
    over the orders, 0 for a single one. score: the task's primary metric, mean over orders. change: score minus own
    score, with a paired bootstrap interval over images (of each image's mean over the orders).
    """

    name: str
    orders: int
    output: float
    spread: float
    score: float
    change: Interval


def reactions(
    opened: Opened, batches: Sequence[Batch], tried: Sequence[Tried], tick: Tick = lambda: None
) -> tuple[float, list[Reaction]]:
    """The model's own score, and its reaction to each kind of order; `tick` is called after each order."""
    own_D, own_score_B = _read_all(opened, batches, opened.order_N)
    found = []
    for kind in tried:
        outputs, scores = [], []
        for order_N in kind.orders_KN:
            summary_BD, score_B = _read_all(opened, batches, order_N)
            outputs.append(float(_relative_change_B(summary_BD, own_D).mean()))
            scores.append(score_B.numpy())
            tick()
        score_B = np.mean(scores, axis=0)
        found.append(
            Reaction(
                name=kind.name,
                orders=len(kind.orders_KN),
                output=float(np.mean(outputs)),
                spread=float(np.std(outputs)),
                score=float(score_B.mean()),
                change=paired_bootstrap(score_B, own_score_B.numpy(), resamples=2000),
            )
        )
    return float(own_score_B.mean()), found


@torch.no_grad()
def _read_all(opened: Opened, batches: Sequence[Batch], order_N: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Summaries [B, D] and scores [B] of all batches, on the CPU."""
    seen = [read(opened, batch, order_N) for batch in batches]
    return (
        torch.cat([each.summary_BD.float().cpu() for each in seen]),
        torch.cat([each.score_B.cpu() for each in seen]),
    )


def _relative_change_B(summary_BD: Tensor, own_BD: Tensor) -> Tensor:
    return (summary_BD - own_BD).norm(dim=1) / own_BD.norm(dim=1).clamp(min=1e-12)
