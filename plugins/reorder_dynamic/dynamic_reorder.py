"""Patches reordered by what the model has seen of them so far. B images, N patches or slots, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reorder_core import Context, Layout, UsageError
from reorder_core.layout import take_each
from reorder_core.straight_through import falling_order, straight_through_sort

if TYPE_CHECKING:
    from reorder_dynamic.settings import DynamicReorderSettings


class DynamicReorder(nn.Module):
    """The auxiliary head: after `after` blocks patch n of an image has the evidence e_n = w · norm(x_n).

    It has two uses. A summary read there with the weights softmax(e) (attention pooling: Ilse et al. 2018, equation 8)
    is an exit of the backbone, on which the task reads its own head; its loss teaches w which patches tell the class.
    And the blocks that follow read the patches by rising `spread` · slot / (N − 1) + e ("descending": − e): a patch
    leaves its place only for evidence, and w starts at zero, so that at first nothing moves. Under `learn: order` the
    loss of the whole model reaches e too, straight through SoftSort (`reorder_core/straight_through.py`).

    What it costs: a norm, a product with one vector, a sort of N numbers and one gather. No random number anywhere.
    """

    def __init__(self, settings: DynamicReorderSettings, context: Context) -> None:
        super().__init__()
        self.settings = settings
        self.norm = nn.LayerNorm(context.width)
        self.weight_D = nn.Parameter(torch.zeros(context.width))
        self.weight_D._no_weight_decay = True  # type: ignore[attr-defined]
        self.exits_after: tuple[int, ...] = () if settings.learn == "order" else (settings.after - 1,)

    def prepare(self, depth: int) -> None:
        """Raises `UsageError` where no block is left to read the new order."""
        if self.settings.after >= depth:
            raise UsageError(
                f"backbone.between.after: a model of {depth} blocks has none left after {self.settings.after} to read "
                f"the new order: lower it, or make the model deeper"
            )

    def evidence(self, tokens_BND: Tensor) -> Tensor:
        """How much each patch tells, float32 [B, N], in the order of the tokens."""
        evidence_BN: Tensor = (self.norm(tokens_BND) @ self.weight_D).float()
        return evidence_BN

    def exit_weights(self, k: int, tokens_BND: Tensor, layout: Layout) -> Tensor:
        """softmax of the evidence over the patches, [B, N]; 0 for padding."""
        evidence_BN = self.evidence(tokens_BND)
        if layout.valid_BN is not None:
            evidence_BN = evidence_BN.masked_fill(~layout.valid_BN, float("-inf"))
        return evidence_BN.softmax(dim=1)

    def forward(self, k: int, tokens_BND: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """After block `after` − 1 the new order, an own one for each image; after all others nothing."""
        if k + 1 != self.settings.after:
            return tokens_BND, layout
        key_BN = self._key(tokens_BND)
        index_BN = falling_order(key_BN)
        if layout.valid_BN is not None:  # padding stays behind what is read
            padding_BN = (~layout.valid_BN).gather(1, index_BN).to(torch.uint8)
            index_BN = index_BN.gather(1, padding_BN.argsort(dim=1, stable=True))
        if self.training and self.settings.learn != "exit":
            tokens_BND = straight_through_sort(tokens_BND, key_BN, index_BN, self.settings.temperature)
        else:
            tokens_BND = take_each(tokens_BND, index_BN)
        return tokens_BND, layout.rearranged(index_BN)

    def _key(self, tokens_BND: Tensor) -> Tensor:
        """What falls along the new order, [B, N]."""
        evidence_BN = self.evidence(tokens_BND)
        place_N = torch.linspace(0.0, self.settings.spread, tokens_BND.shape[1], device=evidence_BN.device)
        return -(place_N + evidence_BN) if self.settings.direction == "ascending" else evidence_BN - place_N
