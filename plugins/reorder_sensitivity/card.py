"""The facts of a model card: parameters, FLOPs of one image, what the backbone declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def _attention_flops(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Scores and mixing; shapes [B, H, L, E] and [B, H, S, E]."""
    images, heads, length, width = query
    return int(4 * images * heads * length * key[2] * width)


@torch.no_grad()
def card(opened: Opened) -> Card:
    """Count on one validation image, in the model's own order.

    Matrix products, convolutions and attention are counted by torch's own counter, and operators of rooms by the
    formula that they register with it (`torch.utils.flop_counter.register_flop_formula`).
    """
    model, task = opened.model, opened.task
    modules = [model, *([task] if isinstance(task, torch.nn.Module) else [])]
    batch = next(opened.batches(opened.dataset.validation, 1))
    # torch's counter leaves out the attention that a CPU runs
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        model(batch.images_BCHW, layout_of(opened, opened.order_N))
    return Card(
        name=opened.recipe.backbone.name,
        parameters=sum(values.numel() for module in modules for values in module.parameters()),
        flops=int(counter.get_total_flops()),
        attention=str(model.backbone.attention),
        order_sensitive=bool(model.backbone.order_sensitive),
    )
