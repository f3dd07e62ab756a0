"""One pass over the validation split, shared between processes, every image counted once.

B images of this process, S all validation images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from reorder_core.interfaces.dataset import Batch
from reorder_core.model import Order
from reorder_core.training.build import Learner
from reorder_core.training.journal import numbers
from reorder_core.training.loader import Shares


@dataclass(frozen=True)
class Validation:
    """metrics: of the whole split, `loss` among them. score_S: the primary metric of each image, float32 [S]."""

    metrics: dict[str, float]
    score_S: NDArray[np.float32]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`; a target may be a tensor, or a mapping or sequence of them."""
    from accelerate.utils import send_to_device

    if device.type == "cpu":
        return batch
    images, target, index = send_to_device((batch.images_BCHW, batch.target, batch.index_B), device, non_blocking=True)
    return Batch(images, target, index)


@torch.no_grad()
def evaluate(
    learner: Learner,
    batches: Iterator[Batch],
    order_of: Callable[[Batch], Order],
    accelerator: Accelerator,
    shares: Shares,
    images: int,
    stop_after: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Validation:
    """Metrics and scores of `learner` over `batches` (this process's part of `images` images, in order).

    order_of: in which order, or orders, the images of a batch are read; asked once a batch, in evaluation mode.
    """
    was_training = learner.training
    learner.eval()
    task = learner.task
    metrics: Any = task.metrics()
    if hasattr(metrics, "to"):
        metrics = metrics.to(accelerator.device) or metrics
    rows: list[Tensor] = []
    for number, batch in enumerate(batches):
        batch = to_device(batch, accelerator.device)
        with accelerator.autocast():
            result = learner(batch, order_of(batch))
        metrics.update(result, batch)
        rows.append(torch.stack([task.score_B(result, batch).float(), result.loss_B.float()], dim=1))
        tick()
        if stop_after is not None and number + 1 >= stop_after:
            break
    learner.train(was_training)
    local_B2 = torch.cat(rows) if rows else torch.zeros(0, 2, device=accelerator.device)
    score_S, loss_S = (local_B2 if stop_after else _gather(local_B2, accelerator, shares, images)).unbind(1)
    found = {"loss": float(loss_S.double().mean()), **numbers(metrics.compute())}
    return Validation(found, score_S.cpu().numpy().astype(np.float32))


def _gather(local_B2: Tensor, accelerator: Accelerator, shares: Shares, images: int) -> Tensor:
    """All images' rows in order: parts differ by at most one image, so each is padded to the longest."""
    if shares.processes == 1:
        return local_B2
    lengths = [len(Shares(process, shares.processes).chunk(images)) for process in range(shares.processes)]
    padded = torch.zeros(max(lengths), 2, device=local_B2.device)
    padded[: len(local_B2)] = local_B2
    parts = accelerator.gather(padded).view(shares.processes, max(lengths), 2)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
