"""The Sparse Transformer's mixer: a pattern over the patches; special tokens see all, and are seen by all.

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
from reorder_sparse_transformer.big_bird import BigBird, BlockPlan
from reorder_sparse_transformer.factorised import Factorised
from reorder_sparse_transformer.folded_attention import Part
from reorder_sparse_transformer.sequence_places import Places
from reorder_sparse_transformer.settings import (
    SparseTransformerMixerSettings,
    SparseTransformerSettings,
    odd_heads,
)


class Plan(NamedTuple):
    """What all blocks of a stack share: for each kind of layer its pattern and plan, and where special tokens stand.

    special_mask: [b, 1, S, S + N], or None where special tokens look everywhere.
    """

    layers: tuple[tuple[Factorised, tuple[Part, ...]] | tuple[BigBird, BlockPlan], ...]
    special_mask: Tensor | None
    special: tuple[int, ...]


class SparseTransformerMixer(nn.Module):
    """See `SparseTransformerMixerSettings`. Parameters have the names of timm's attention: `qkv`, `proj`.

    number: the place of this layer in a stack of `depth`; alternating takes A(1) and A(2) by it, bigbird other blocks.
    Raises `UsageError` where heads do not divide the width, or the pattern does not fit the grid.
    """

    orders = 1

    def __init__(
        self,
        settings: SparseTransformerMixerSettings | SparseTransformerSettings,
        context: Context,
        number: int = 0,
        depth: int = 1,
    ) -> None:
        super().__init__()
        if said := uneven_heads(context.width, settings.heads):
            raise UsageError(said)
        for problem in odd_heads(settings.factorised, settings.heads):
            raise UsageError(f"{problem.key}: {problem.message}")
        self.settings, self.heads, self.number, self.depth = settings, settings.heads, number, depth
        self.attention: Attention = "causal" if settings.causal else "full"
        patterns = self._patterns(context.grid)
        self.order_sensitive = not all(pattern.sees_all(context.grid.size) for pattern in patterns)
        self.qkv = nn.Linear(context.width, 3 * context.width)
        self.proj = nn.Linear(context.width, context.width)

    def plan(self, layout: Layout | tuple[Layout, ...]) -> Plan:
        """Masks and blocks for this layout. Raises `UsageError` where the pattern does not fit its grid."""
        layout = layout[0] if isinstance(layout, tuple) else layout
        places = Places.of(layout)
        layers = tuple((pattern, pattern.plan(places, self.heads)) for pattern in self._patterns(layout.grid))
        return Plan(layers, places.seen_by_special(self.settings.causal), layout.special)  # type: ignore[arg-type]

    def forward(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        S = len(plan.special)
        ahead = plan.special == tuple(range(S))
        if not ahead:
            patches_BND, special_BSD = take_apart(tokens_BLD, plan.special)
            tokens_BLD = torch.cat([special_BSD, patches_BND], dim=1)
        output_BLD: Tensor = self.proj(self._attend(tokens_BLD, plan))
        return output_BLD if ahead else insert(output_BLD[:, S:], output_BLD[:, :S], plan.special)

    def _attend(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """Attention with the special tokens ahead of the patches."""
        S = len(plan.special)
        q, k, v = self.qkv(tokens_BLD).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pattern, own = plan.layers[self.number % len(plan.layers)]
        special_kv = (k[:, :, :S], v[:, :, :S]) if S else None
        y_BHLE = pattern.attend(q[:, :, S:], k[:, :, S:], v[:, :, S:], special_kv, own)  # type: ignore[arg-type]
        if S:
            special = functional.scaled_dot_product_attention(q[:, :, :S], k, v, attn_mask=plan.special_mask)
            y_BHLE = torch.cat([special, y_BHLE], dim=2)
        return y_BHLE.transpose(1, 2).flatten(2)

    def _patterns(self, grid: Grid) -> tuple[Factorised, ...] | tuple[BigBird, ...]:
        """The patterns that the layers of the stack take in turn."""
        settings = self.settings
        if misfit := settings.misfit(grid):
            raise UsageError(f"{misfit.key}: {misfit.message}")
        if settings.pattern == "bigbird":
            block, seed, (edges, random) = settings.block or 8, settings.seed or 0, settings.global_and_random
            return tuple(BigBird(block, edges, random, seed * 1009 + layer) for layer in range(self.depth))
        stride, summary = settings.stride_on(grid), settings.summary or 1
        combine = ("first", "second") if settings.factorised == "alternating" else (settings.factorised,)
        return tuple(Factorised(settings.pattern, stride, summary, settings.causal, part) for part in combine)
