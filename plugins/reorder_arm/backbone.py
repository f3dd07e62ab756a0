"""The backbone `arm`: blocks of Mamba and MLP.

B images, N patches or slots, S special tokens (0 or 1), L = N + S steps, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from reorder_arm.settings import ArmSettings
from reorder_arm.weights import ArmEmbedding, load_arm, read_arm
from reorder_core import ComponentRef, Context, Features, Grid, Layout, Level, SequenceModel, UsageError, seeded
from reorder_core.layout import take_apart


class SwiGLU(nn.Module):
    """`w3(silu(w1(x)) * w2(x))` (Shazeer 2020, arXiv 2002.05202), hidden width 8 D / 3 rounded down."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * 4 * 2 // 3
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        output_BLD: Tensor = self.w3(functional.silu(self.w1(tokens_BLD)) * self.w2(tokens_BLD))
        return output_BLD


class Block(nn.Module):
    """`x + mixer(norm1(x))`, then `x + mlp(norm2(x))`; a branch is dropped for a whole image with `drop_path`."""

    def __init__(self, mixer: Any, width: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwiGLU(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens_BLD: Tensor, plan: Any) -> Tensor:
        tokens_BLD = tokens_BLD + self.drop_path(self.mixer(self.norm1(tokens_BLD), plan))
        output_BLD: Tensor = tokens_BLD + self.drop_path(self.mlp(self.norm2(tokens_BLD)))
        return output_BLD


class ArmBackbone(SequenceModel):
    """See `ArmSettings`. Names of parameters are the published ones: `layers.0.mixer.conv1d_c_b.weight`, `norm_f`, …

    Its mixer is the component `mamba`: direction `four` is that of the fine-tuned models, which read rows and columns
    of the *sequence*, laid out as the grid. The class token stands in the middle, also where the mean is read.

    With `weights`, `embedding` gives the published patch embedding and positions; the position of the class token is
    added to the token itself. Further levels (`levels` > 1) are the tokens of earlier depths, before the last norm.
    """

    def __init__(self, settings: ArmSettings, context: Context) -> None:
        super().__init__(settings, context)
        if settings.readout == "class" and not settings.has_class_token:
            raise UsageError("backbone.readout: there is no class token to read: set class_token: true")
        if settings.depths_kept[-1] < 1:
            raise UsageError(f"backbone.levels: {settings.depth} blocks have no {settings.levels} depths: take fewer")
        ref = ComponentRef("mixer", "mamba", settings.mixer_settings())
        with seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            mixers = [context.build(ref, width=settings.width) for _ in rates]
            self.layers = nn.ModuleList(
                Block(mixer, settings.width, rate) for mixer, rate in zip(mixers, rates, strict=True)
            )
            self.norm_f = nn.LayerNorm(settings.width)
            _initialise(self.layers)
            if settings.has_class_token:
                self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, settings.width), std=0.02))
                self.cls_token._no_weight_decay = True  # type: ignore[attr-defined]
        self.attention, self.orders = mixers[0].attention, mixers[0].orders
        self.order_sensitive = mixers[0].order_sensitive
        if settings.weights is not None:
            load_arm(self, settings.weights)

    def embedding(self, grid: Grid, patch: int, channels: int) -> nn.Module | None:
        """The patch embedding and positions of `weights`, fitted to this grid; None without weights."""
        if self.settings.weights is None:
            return None
        return ArmEmbedding(read_arm(self.settings.weights), self.settings.weights, grid, patch, channels, self.width)

    def blocks_in_order(self) -> Iterable[nn.Module]:
        return self.layers

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        normed_BLD: Tensor = self.norm_f(tokens_BLD)
        return normed_BLD

    def special_tokens(self) -> Tensor | None:
        return self.cls_token if self.settings.has_class_token else None

    def special_places(self, N: int) -> tuple[int, ...]:
        return (N // 2,) if self.settings.has_class_token else ()

    def forward(
        self, tokens_BND: Tensor, layout: Layout | tuple[Layout, ...], text_BTD: Tensor | None = None
    ) -> Features:
        """tokens_BND in reading order, positions added. Levels: the last block's, normed, then earlier ones."""
        if self.settings.levels == 1:
            return super().forward(tokens_BND, layout, text_BTD)
        reading, kept = self.start(tokens_BND, layout, text_BTD), {}
        for depth in sorted(self.settings.depths_kept):
            reading = self.advance(reading, depth)
            patches_BND, _ = take_apart(reading.tokens_BLD, self.places(reading))
            kept[depth] = Level(patches_BND, reading.layouts[0])
        features = self.finish(reading)
        earlier = tuple(kept[depth] for depth in self.settings.depths_kept[1:])
        return replace(features, levels=(*features.levels, *earlier))


def _initialise(layers: nn.ModuleList) -> None:
    """Zero biases in the MLPs, and the mixers' last projection scaled down with the depth, as published."""
    for block in layers:
        for linear in (block.mlp.w1, block.mlp.w2, block.mlp.w3):
            nn.init.zeros_(linear.bias)
        nn.init.kaiming_uniform_(block.mixer.out_proj.weight, a=5**0.5)
        with torch.no_grad():
            block.mixer.out_proj.weight /= len(layers) ** 0.5
