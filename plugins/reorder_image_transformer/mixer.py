"""The Image Transformer's mixer: local attention of the patches; special tokens see all, and are seen by all.

B images, L = N + S tokens of a sequence, N patches, S special tokens, D width, H heads, E = D / H.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Context, Grid, Layout, UsageError, uneven_heads
from reorder_core.interfaces.backbone import Attention
from reorder_core.layout import insert, take_apart
from reorder_image_transformer.blocks import Blocks
from reorder_image_transformer.local_attention import local_attention, memory_mask, special_mask
from reorder_image_transformer.settings import ImageTransformerMixerSettings


class Plan(NamedTuple):
    """What all blocks of a stack share: how the patches are cut, who may look where, and where tokens stand.

    mask: [n, b, 1, q, S + m], b being 1 or B. special_mask: [b, 1, S, S + N] or None. placed: the layout, where tokens
    must first go to their places on the grid, else None.
    """

    blocks: Blocks
    mask: Tensor
    special_mask: Tensor | None
    special: tuple[int, ...]
    placed: Layout | None


class ImageTransformerMixer(nn.Module):
    """See `ImageTransformerMixerSettings`. Parameters have the names of timm's attention: `qkv`, `proj`.

    Raises `UsageError` where heads do not divide the width, or blocks do not fit the grid.
    """

    orders = 1

    def __init__(self, settings: ImageTransformerMixerSettings, context: Context) -> None:
        super().__init__()
        if said := uneven_heads(context.width, settings.heads):
            raise UsageError(said)
        self.settings = settings
        self.heads = settings.heads
        blocks = self._blocks(context.grid)
        self.attention: Attention = "causal" if settings.causal else "full"
        # Rectangles of the picture move with it; so does what sees everything.
        self.order_sensitive = settings.causal or not (settings.blocks == "places" or blocks.see_all)
        self.qkv = nn.Linear(context.width, 3 * context.width)
        self.proj = nn.Linear(context.width, context.width)

    def plan(self, layout: Layout | tuple[Layout, ...]) -> Plan:
        """The masks of this layout. Raises `UsageError` where the blocks do not fit its grid."""
        layout = layout[0] if isinstance(layout, tuple) else layout
        blocks, causal = self._blocks(layout.grid), self.settings.causal
        placed = layout if self.settings.blocks == "places" else None
        number, valid = _numbers(layout, placed is not None)
        special_at = tuple(place - k for k, place in enumerate(layout.special))
        mask = memory_mask(number, blocks, causal, valid, special_at)
        return Plan(blocks, mask, special_mask(number, causal, valid, special_at), layout.special, placed)

    def forward(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        S = len(plan.special)
        ahead = plan.special == tuple(range(S))
        if plan.placed is not None or not ahead:
            patches_BND, special_BSD = take_apart(tokens_BLD, plan.special)
            patches_BND = patches_BND if plan.placed is None else plan.placed.restore(patches_BND)
            tokens_BLD = torch.cat([special_BSD, patches_BND], dim=1)
        output_BLD: Tensor = self.proj(self._attend(tokens_BLD, plan))
        if plan.placed is None and ahead:
            return output_BLD
        patches_BND = output_BLD[:, S:] if plan.placed is None else plan.placed.order(output_BLD[:, S:])
        return insert(patches_BND, output_BLD[:, :S], plan.special)

    def _attend(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """Attention with the special tokens ahead of the patches."""
        S = len(plan.special)
        q, k, v = self.qkv(tokens_BLD).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = plan.mask[:, 0]
        if plan.mask.shape[1] > 1:
            mask = plan.mask.expand(-1, -1, self.heads, -1, -1).flatten(1, 2)
        special_kv = (k[:, :, :S], v[:, :, :S]) if S else None
        y_BND = local_attention(q[:, :, S:], k[:, :, S:], v[:, :, S:], plan.blocks, mask, special_kv)
        if not S:
            return y_BND
        y_BHSE = functional.scaled_dot_product_attention(q[:, :, :S], k, v, attn_mask=plan.special_mask)
        return torch.cat([y_BHSE.transpose(1, 2).flatten(2), y_BND], dim=1)

    def _blocks(self, grid: Grid) -> Blocks:
        if misfit := self.settings.misfit(grid):
            raise UsageError(f"{misfit.key}: {misfit.message}")
        return Blocks.of(self.settings, grid)


def _numbers(layout: Layout, placed: bool) -> tuple[Tensor, Tensor | None]:
    """The number of each patch in the order of reading, from 1 on, and which are no padding: [b, 1, N, 1] both.

    They stand in the order of reading themselves, or (`placed`) in that of the grid.
    """
    N, valid_BN = layout.perm_GN.shape[1], layout.valid_BN
    number_bN = torch.arange(1, N + 1, device=layout.perm_GN.device)[None]
    if placed:
        number_bN = layout.slot_GN + 1
        number_bN = number_bN if layout.group_B is None else number_bN[layout.group_B]
        valid_BN = None if valid_BN is None else layout.restore(valid_BN[:, :, None]).squeeze(2)
    valid = None if valid_BN is None else valid_BN[:, None, :, None]
    return number_bN[:, None, :, None], valid
