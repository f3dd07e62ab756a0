"""What a patch may be important to: how sure a model is of the class that it names.

B images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core import Batch, Layout, UsageError
from reorder_core.opened import Opened


@dataclass(frozen=True)
class Objective:
    """A model that reads in one order, seen as a function from images to one number each.

    For tasks with classes: the logit of one class above the mean of all logits, which neither saturates when the model
    is sure nor moves when all logits do. For other tasks: minus the loss of the image.
    """

    opened: Opened
    order_N: NDArray[np.int64]

    @property
    def layout(self) -> Layout:
        perm_N = torch.from_numpy(np.ascontiguousarray(self.order_N))
        return Layout.fixed(self.opened.grid, perm_N).to(self.opened.device)

    def __call__(
        self, batch: Batch, images_BCHW: Tensor, class_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The objective [B] of these images, and the class [B] that it is about (None for tasks without).

        batch: where the targets are. images_BCHW: the batch's own, or changed ones. class_B: the class; left out, the
        likeliest one. Raises `UsageError` where the task has no logits and the batch no targets.
        """
        task: Any = self.opened.task
        if hasattr(task, "predict"):
            logits_BK = task.predict(self.opened.model(images_BCHW, self.layout))
            if isinstance(logits_BK, Tensor) and logits_BK.ndim == 2 and logits_BK.shape[1] > 1:
                if class_B is None:
                    class_B = logits_BK.detach().argmax(dim=1)
                above_BK = logits_BK - logits_BK.mean(dim=1, keepdim=True)
                return above_BK.gather(1, class_B[:, None])[:, 0], class_B
        if batch.target is None:
            name = self.opened.recipe.task.ref.name
            raise UsageError(f"the task '{name}' names no class whose evidence could be followed: use source: variance")
        return -task.step(self.opened.model, replace(batch, images_BCHW=images_BCHW), self.layout).loss_B, None
