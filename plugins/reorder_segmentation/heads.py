"""Heads from tokens on the grid to the logits of pixels.

B images, N patches of the finest level, D width of a level, W width of the pyramid, K classes, r rows and c columns of
the grid, s predictions along a side of a patch, h w predictions of an image (h = r·s).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from reorder_core import Level
from reorder_core.grid import prime_factors
from reorder_segmentation.grid import on_grid

_NARROWEST = 16


class LinearHead(nn.Module):
    """Each token says the logits of its own pixels: one linear layer for each level, their sum, and nothing beside.

    Nothing passes between patches. With s = 1 it is the linear decoder of Segmenter (Strudel et al. 2021, section 3.2).
    """

    def __init__(self, widths: Sequence[int], classes: int, side: int, dropout: float) -> None:
        super().__init__()
        self.side = side
        self.dropout = nn.Dropout(dropout)
        self.levels = nn.ModuleList(
            nn.Linear(width, classes * side * side, bias=not number) for number, width in enumerate(widths)
        )

    def forward(self, levels: Sequence[Level]) -> Tensor:
        """All levels of the backbone, finest first, to logits [B, K, h, w]; the last ones are read."""
        read = zip(self.levels, levels[-len(self.levels) :], strict=True)
        said_BNP = summed([layer(self.dropout(level.tokens_BND)) for layer, level in read], levels)
        return pixel_shuffle(as_map(said_BNP, levels[0]), self.side)


class PyramidHead(nn.Module):
    """Convolutions on the grid, then transposed ones from patches to pixels; no norm that mixes images.

    Every level is brought to W channels and spread over the finest grid, and all are added up (as UPerNet fuses, Xiao
    et al. 2018, with the plain upsampling of ViTDet's simple pyramid, Li et al. 2022, section 3.1). A 3×3 convolution
    joins neighbours; then each prime factor of s is one transposed convolution, with half the channels.
    """

    def __init__(self, widths: Sequence[int], classes: int, side: int, dropout: float, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Linear(of_level, width, bias=not number) for number, of_level in enumerate(widths)
        )
        self.fuse = nn.Sequential(
            LayerNorm2d(width), nn.Conv2d(width, width, 3, padding=1), LayerNorm2d(width), nn.GELU()
        )
        steps: list[nn.Module] = []
        for factor in prime_factors(side):
            narrower = max(min(width, _NARROWEST), width // 2)
            steps += [nn.ConvTranspose2d(width, narrower, factor, factor), LayerNorm2d(narrower), nn.GELU()]
            width = narrower
        self.finer = nn.Sequential(*steps)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, levels: Sequence[Level]) -> Tensor:
        """All levels of the backbone, finest first, to logits [B, K, h, w]; the last ones are read."""
        read = zip(self.levels, levels[-len(self.levels) :], strict=True)
        fused_BWrc = self.fuse(as_map(summed([layer(level.tokens_BND) for layer, level in read], levels), levels[0]))
        logits_BKhw: Tensor = self.classify(self.dropout(self.finer(fused_BWrc)))
        return logits_BKhw


def summed(tokens: Sequence[Tensor], levels: Sequence[Level]) -> Tensor:
    """Tokens of the last levels, each in its reading order, added up on the finest grid in patch order, [B, N, D]."""
    layouts, first = [level.layout for level in levels], len(levels) - len(tokens)
    return torch.stack([on_grid(one_BND, layouts, first + k) for k, one_BND in enumerate(tokens)]).sum(dim=0)


def as_map(patches_BND: Tensor, finest: Level) -> Tensor:
    """Patches in patch order as a map, [B, D, r, c]."""
    B, _, D = patches_BND.shape
    grid = finest.layout.grid
    return patches_BND.transpose(1, 2).reshape(B, D, grid.rows, grid.columns)
