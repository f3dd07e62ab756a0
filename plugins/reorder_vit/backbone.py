"""The vision transformer: pre-norm blocks with full attention. It adds no positions, so the order can not matter.

B images, L tokens (patches and class token), D width.
"""

from __future__ import annotations

from collections.abc import Iterable

from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reorder_core import Context, Layout, SequenceModel, load_weights, seeded
from reorder_core.sequence import initialise
from reorder_vit.attention import FullAttention, Plan
from reorder_vit.settings import VitSettings

# What timm's VisionTransformer has besides: here patch embedding and positions are the model's, and heads the task's.
_NOT_OURS = ("patch_embed.", "pos_embed", "head.")


class VitBlock(nn.Module):
    """`x + attn(norm1(x))`, then `x + mlp(norm2(x))`, with the parameter names of timm's Block."""

    def __init__(self, settings: VitSettings, context: Context, drop_path: float) -> None:
        super().__init__()
        width = settings.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = FullAttention(settings, context, settings.dropout)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6) if settings.mlp_ratio else None
        self.mlp = Mlp(width, int(width * settings.mlp_ratio), drop=settings.dropout) if settings.mlp_ratio else None
        self.drop_path2 = DropPath(drop_path)

    def forward(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        tokens_BLD = tokens_BLD + self.drop_path1(self.attn(self.norm1(tokens_BLD), plan))
        if self.norm2 is not None and self.mlp is not None:
            tokens_BLD = tokens_BLD + self.drop_path2(self.mlp(self.norm2(tokens_BLD)))
        return tokens_BLD


class VitBackbone(SequenceModel):
    """See `VitSettings`. Names of parameters follow timm's VisionTransformer: `cls_token`, `blocks.0.attn.qkv`, `norm`.

    A file of weights may be one of timm's: its patch embedding, positions and head are left out.
    """

    def __init__(self, settings: VitSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.order_sensitive = settings.readout == "last"
        inner = context.changed(width=settings.width)
        with seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            self.blocks = nn.ModuleList(VitBlock(settings, inner, rate) for rate in rates)
            self.norm = nn.LayerNorm(settings.width, eps=1e-6)
            self.make_class_token(std=1e-6)
            initialise(self)
        if settings.readout == "class":
            # It decays, as it always has in this room: the published settings were written with it.
            self.cls_token._no_weight_decay = False  # type: ignore[attr-defined]
        if settings.weights is not None:
            load_weights(self, settings.weights, self._own_name)

    def blocks_in_order(self) -> Iterable[nn.Module]:
        return self.blocks

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens_BLD)
        return normed

    def plan(self, layout: Layout) -> Plan:  # type: ignore[override]
        return self.blocks[0].attn.plan(layout)  # type: ignore[no-any-return, operator, union-attr]

    def _own_name(self, name: str) -> str | None:
        dropped = name.startswith(_NOT_OURS) or (name == "cls_token" and self.settings.readout != "class")
        return None if dropped else name
