"""The facts of a model card: parameters, FLOPs of one image, what the backbone declares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from reorder_core.opened import Opened
from reorder_sensitivity.reading import layout_of


@dataclass(frozen=True)
class Card:
    """parameters: of embedding, backbone and head. flops: of one image's forward pass; a multiply-add counts as two."""

    name: str
    parameters: int
    flops: int
    attention: str
    order_sensitive: bool


@torch.no_grad()
def card(opened: Opened) -> Card:
    """Count on one validation image, in the model's own order.

    Matrix products, convolutions and attention are counted by torch's own counter, and operators of rooms by the
    formula that they register with it (`torch.utils.flop_counter.register_flop_formula`).
    """
    model, task = opened.model, opened.task
    modules = [model, *([task] if isinstance(task, torch.nn.Module) else [])]
    batch = next(opened.batches(opened.dataset.validation, 1))
    with FlopCounterMode(display=False) as counter:
        model(batch.images_BCHW, layout_of(opened, opened.order_N))
    return Card(
        name=opened.recipe.backbone.name,
        parameters=sum(values.numel() for module in modules for values in module.parameters()),
        flops=int(counter.get_total_flops()),
        attention=str(model.backbone.attention),
        order_sensitive=bool(model.backbone.order_sensitive),
    )
