"""The vision transformer: timm's own blocks with full attention. It adds no positions, so the order can not matter.

B images, N patches or slots, L tokens (patches and class token), D width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from reorder_core import Context, Features, Layout, Level, UsageError
from reorder_vit.settings import VitSettings

Between = Callable[[int, Tensor, Layout], tuple[Tensor, Layout]]


class VitBackbone(nn.Module):
    """See `VitSettings`. Names of parameters follow timm's VisionTransformer: `cls_token`, `blocks.0.…`, `norm`.

    `between(k, tokens_BND, layout)`, where it is set, is called after each block with the patches alone.
    """

    orders = 1
    order_sensitive = False
    attention = "full"

    def __init__(self, settings: VitSettings, context: Context) -> None:
        super().__init__()
        if settings.width % settings.heads:
            raise UsageError(f"a width of {settings.width} is not divisible by {settings.heads} heads: change one")
        self.settings = settings
        self.width = settings.width
        self.between: Between | None = None
        seeded = nullcontext() if context.generator is None else torch.random.fork_rng(devices=[])
        with seeded:
            if context.generator is not None:
                torch.manual_seed(int(torch.randint(2**62, (1,), generator=context.generator)))
            self.blocks = nn.ModuleList(_block(settings, k) for k in range(settings.depth))
            self.norm = nn.LayerNorm(settings.width, eps=1e-6)
            if settings.readout == "class":
                self.cls_token = nn.Parameter(torch.empty(1, 1, settings.width).normal_(std=1e-6))
            self.apply(_initialise)

    def forward(self, tokens_BND: Tensor, layout: Layout | tuple[Layout, ...]) -> Features:
        """tokens_BND in reading order, positions added; the summary is the class token's or the patches' mean."""
        layout = layout[0] if isinstance(layout, tuple) else layout
        first = 1 if self.settings.readout == "class" else 0
        tokens_BLD = tokens_BND
        if first:
            tokens_BLD = torch.cat([self.cls_token.to(tokens_BND.dtype).expand(len(tokens_BND), -1, -1), tokens_BND], 1)
        for k, block in enumerate(self.blocks):
            mask = _mask(layout.valid_BN, first)
            tokens_BLD = block(tokens_BLD) if mask is None else block(tokens_BLD, attn_mask=mask)
            if self.between is not None:
                tokens_BND, layout = self.between(k, tokens_BLD[:, first:], layout)
                tokens_BLD = torch.cat([tokens_BLD[:, :first], tokens_BND], dim=1)
        tokens_BLD = self.norm(tokens_BLD)
        tokens_BND = tokens_BLD[:, first:]
        summary_BD = tokens_BLD[:, 0] if first else _mean(tokens_BND, layout.valid_BN)
        return Features((Level(tokens_BND, layout),), summary_BD)


def _block(settings: VitSettings, k: int) -> Block:
    return Block(
        settings.width,
        settings.heads,
        settings.mlp_ratio,
        qkv_bias=True,
        proj_drop=settings.dropout,
        drop_path=settings.drop_path * k / max(1, settings.depth - 1),
    )


def _initialise(module: nn.Module) -> None:
    """timm's rule for a ViT's linear layers: truncated normal weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _mask(valid_BN: Tensor | None, first: int) -> Tensor | None:
    """True where a token may be looked at, [B, 1, 1, L]; None where nothing is padding."""
    if valid_BN is None:
        return None
    return torch.cat([valid_BN.new_ones(len(valid_BN), first), valid_BN], dim=1)[:, None, None, :]


def _mean(tokens_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
    if valid_BN is None:
        return tokens_BND.mean(dim=1)
    weight_BN1 = valid_BN.to(tokens_BND.dtype).unsqueeze(-1)
    return (tokens_BND * weight_BN1).sum(dim=1) / weight_BN1.sum(dim=1).clamp(min=1)
