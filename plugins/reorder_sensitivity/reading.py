"""Reading images with a model in a given order, as its task does, and what can be seen on the way.

B images, N slots, D width, C H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core import Batch, Features, Layout, TaskResult
from reorder_core.opened import Opened

Alter = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Read:
    """summary_BD: what the backbone hands on. result: the task's. score: gives the score of each image."""

    summary_BD: Tensor
    result: TaskResult
    score: Callable[[], Tensor]

    @cached_property
    def score_B(self) -> Tensor:
        """The score of each image, made when it is asked for: a task may read the images again for it, word by word."""
        with torch.no_grad():
            return self.score().float()

    @property
    def objective_B(self) -> Tensor:
        """What a slot may influence: the logit of the likeliest class where there is one, else minus the loss."""
        said = self.result.prediction
        if isinstance(said, Tensor) and said.ndim == 2 and said.is_floating_point():
            likeliest_B1 = said.detach().argmax(dim=1, keepdim=True)
            return said.gather(1, likeliest_B1)[:, 0]
        return -self.result.loss_B


def layout_of(opened: Opened, order_N: NDArray[np.int64]) -> Layout:
    """One order for the whole batch, on the model's device."""
    return Layout.fixed(opened.grid, torch.from_numpy(np.ascontiguousarray(order_N))).to(opened.device)


def read(opened: Opened, batch: Batch, order_N: NDArray[np.int64], alter: Alter | None = None) -> Read:
    """One pass of the task in this order. alter: changes the tokens [B, N, D] in slot order, before the backbone."""
    seen: list[Features] = []

    def run(images_BCHW: Tensor, order: Any, text_BTD: Tensor | None = None) -> Features:
        # the hook stands where the model hands tokens in reading order to its backbone
        hook = None
        if alter is not None:
            hook = opened.model.backbone.register_forward_pre_hook(lambda _, given: (alter(given[0]), *given[1:]))
        try:
            features: Features = opened.model(images_BCHW, order, text_BTD)
        finally:
            if hook is not None:
                hook.remove()
        seen.append(features)
        return features

    result = opened.task.step(run, batch, layout_of(opened, order_N))
    return Read(seen[0].summary_BD, result, lambda: opened.task.score_B(result, batch))
