"""Early exit: images that the model is sure of are not read to the end. B images, K classes, D width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reorder_core import Draw, Features, Layout, SequenceModel, UsageError
from reorder_core.model import Model


@dataclass(frozen=True, slots=True)
class Answer:
    """logits_BK: of each image, from where it left. early_B: True where it left at the exit. confidence_B: the largest
    probability at the exit, of all images."""

    logits_BK: Tensor
    early_B: Tensor
    confidence_B: Tensor


@torch.no_grad()
def answer(model: Model, task: Any, images_BCHW: Tensor, order: Layout | Draw, threshold: float) -> Answer:
    """What `task.predict` says of each image, at the first exit where its largest probability there is at least
    `threshold` (0: all leave, above 1: none does), at the end for the others, whose blocks run without those that left.

    Model and task must be in evaluation mode. The exit is that of `backbone.between` (`dynamic_reorder`), read with the
    task's own head (CALM's softmax rule: Schuster et al. 2022, arXiv 2207.07061, section 3.5).
    Raises `UsageError` for a model without an exit.
    """
    backbone = model.backbone
    between = getattr(backbone, "between", None)
    exits = getattr(between, "exits_after", ())
    if not isinstance(backbone, SequenceModel) or not exits:
        raise UsageError(
            "early exit needs a backbone that is read early: "
            "write backbone.between: {name: dynamic_reorder} with learn: exit or both"
        )
    reading = backbone.advance(backbone.start(*model.ordered(images_BCHW, order)), exits[0] + 1)
    logits_BK: Tensor = task.predict(Features((), reading.exits[-1]))
    confidence_B = logits_BK.softmax(dim=1).amax(dim=1)
    early_B = confidence_B >= threshold
    if bool(early_B.all()):
        return Answer(logits_BK, early_B, confidence_B)
    if bool(early_B.any()):
        late_b = (~early_B).nonzero().squeeze(1)
        rest_bK = task.predict(backbone.finish(backbone.advance(reading.part(late_b))))
        return Answer(logits_BK.index_copy(0, late_b, rest_bK), early_B, confidence_B)
    return Answer(task.predict(backbone.finish(backbone.advance(reading))), early_B, confidence_B)
