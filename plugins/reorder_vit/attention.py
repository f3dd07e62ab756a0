"""Full multi-head self-attention as a mixer, with the parameter names of timm's Attention: `qkv`, `proj`.

B images, L tokens (patches and special tokens), D width, H heads, E width of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Context, Layout, UsageError, uneven_heads
from reorder_vit.rotary import Turn, rotate, turn_by_place


class Plan(NamedTuple):
    """What all blocks share: which tokens may be looked at, [B, 1, 1, L] (None: all), and how they turn (None: not)."""

    mask: Tensor | None
    turn: Turn | None


class FullAttention(nn.Module):
    """softmax(q kᵀ / √E) v in every head (Vaswani et al. 2017, equation 1). It can not tell one order from another:
    positions come with the tokens, or, with `rotary`, from the place of each patch.

    `settings` need `heads`, `rotary` and `rotary_base`. Raises `UsageError` where the heads do not fit the width.
    """

    attention = "full"
    order_sensitive = False
    orders = 1

    def __init__(self, settings: Any, context: Context, dropout: float = 0.0) -> None:
        super().__init__()
        width, heads = context.width, settings.heads
        if said := uneven_heads(width, heads):
            raise UsageError(said)
        if settings.rotary and width // heads % 4:
            raise UsageError(f"rotary needs heads divisible by 4, not of {width // heads} channels: change heads")
        if settings.rotary and context.grid.frames > 1:
            raise UsageError("rotary turns by row and column, and knows no frames: use positions for a video")
        self.heads = heads
        self.rotary_base = settings.rotary_base if settings.rotary else None
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def plan(self, layout: Layout) -> Plan:
        """The mask over padding and the turns by place; special tokens are looked at by all, and are not turned."""
        valid_BL, base = layout.valid_BL, self.rotary_base
        head_width = self.proj.in_features // self.heads
        return Plan(
            mask=None if valid_BL is None else valid_BL[:, None, None, :],
            turn=None if base is None else turn_by_place(layout, head_width, base),
        )

    def forward(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        B, L, D = tokens_BLD.shape
        qkv_3BHLE = self.qkv(tokens_BLD).reshape(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q_BHLE, k_BHLE, v_BHLE = qkv_3BHLE.unbind(0)
        if plan.turn is not None:
            q_BHLE, k_BHLE = rotate(q_BHLE, plan.turn), rotate(k_BHLE, plan.turn)
        mixed_BHLE = functional.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask=plan.mask)
        output: Tensor = self.proj_drop(self.proj(mixed_BHLE.transpose(1, 2).reshape(B, L, D)))
        return output
