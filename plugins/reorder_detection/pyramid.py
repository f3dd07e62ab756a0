"""A simple feature pyramid (ViTDet: Li et al. 2022, arXiv 2203.16527, section 3) on the restored grid.

B images, N patches, D width, E channels of the pyramid, h w rows and columns of a map, S maps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from reorder_core import Features, Grid, Level, UsageError


def on_the_grid(level: Level) -> Tensor:
    """The tokens of a level at the places of their patches, [B, D, h, w], whatever order they were read in."""
    tokens_BND = level.layout.restore(level.tokens_BND)
    grid = level.layout.grid
    return tokens_BND.transpose(1, 2).reshape(*tokens_BND.shape[::2], grid.rows, grid.columns)


def stride_of(grid: Grid, patches: Grid) -> int | None:
    """How many patches a cell of `grid` is wide and high; None where it is no coarser grid of the same image.

    Cells at the right and at the bottom may be incomplete, so that several would do: a power of 2 goes before others.
    """
    strides = sorted(range(1, max(patches.rows, patches.columns) + 1), key=lambda stride: stride & (stride - 1) != 0)
    coarser = ((stride, Grid(-(-patches.rows // stride), -(-patches.columns // stride))) for stride in strides)
    return next((stride for stride, found in coarser if found == grid), None)


class SimplePyramid(nn.Module):
    """Maps of several strides from the last map of a plain backbone; strides count in patches.

    A stride below 1 comes by transposed convolutions (of 2 × 2, stride 2; a norm and GELU between two of them), one
    above 1 by max pooling. Each map then goes through a convolution of 1 × 1 and one of 3 × 3, a norm behind each.

    A hierarchy has maps of its own: each stride is made of the coarsest of them that divides it. Levels that
    are narrower than the last are filled up with zeros, which is a 1 × 1 convolution of their own width.
    """

    def __init__(self, width: int, channels: int, strides: tuple[float, ...], grid: Grid) -> None:
        super().__init__()
        self.width, self.strides, self.grid = width, strides, grid
        self.enlarge = nn.ModuleList(self._enlarge(stride) for stride in strides)
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, channels, 1, bias=False),
                LayerNorm2d(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                LayerNorm2d(channels),
            )
            for _ in strides
        )

    def _enlarge(self, stride: float) -> nn.Module:
        twice = nn.ConvTranspose2d
        if stride == 0.5:
            return twice(self.width, self.width, 2, stride=2)
        if stride == 0.25:
            first, second = (twice(self.width, self.width, 2, stride=2) for _ in range(2))
            return nn.Sequential(first, LayerNorm2d(self.width), nn.GELU(), second)
        return nn.Identity()

    def forward(self, features: Features) -> list[Tensor]:
        """S maps [B, E, h, w], the finest first. Raises `UsageError` where no level stands on the grid of patches."""
        sources = self._sources(features)
        maps = []
        for stride, enlarge, smooth in zip(self.strides, self.enlarge, self.smooth, strict=True):
            own = max(each for each in sources if max(1, stride) % each == 0)
            map_BDhw = enlarge(sources[own])
            pooled = max(1, round(stride / own))
            if pooled > 1:
                map_BDhw = max_pool2d(map_BDhw, pooled, ceil_mode=True)
            maps.append(smooth(map_BDhw))
        return maps

    def _sources(self, features: Features) -> dict[int, Tensor]:
        """The backbone's maps by their stride in patches; levels that have left the grid (a line, say) are no maps."""
        found: dict[int, Tensor] = {}
        for level in features.levels:
            stride = stride_of(level.layout.grid, self.grid)
            if stride is not None and level.layout.grid.size == level.tokens_BND.shape[1]:
                map_BDhw = on_the_grid(level)
                found[stride] = pad(map_BDhw, (0, 0, 0, 0, 0, self.width - map_BDhw.shape[1]))
        self.refuse_without(found, [level.layout.grid for level in features.levels])
        return found

    def refuse_without(self, own: Collection[int], grids: Sequence[Grid]) -> None:
        """Raise `UsageError` where a stride can be made of none of the levels' own strides; grids: for the sentence."""
        if not all(any(max(1, stride) % each == 0 for each in own) for stride in self.strides):
            raise UsageError(
                f"task.head.strides: a map is made of a level that stands on the grid of {self.grid} patches or on one "
                f"that is as much coarser, and the backbone gives {[str(grid) for grid in grids]}: "
                f"choose other strides, or a backbone that keeps the grid"
            )


def centres_L2(sizes: list[tuple[int, int]], strides: list[float], device: torch.device) -> Tensor:
    """The centres (across, down) of all cells of all maps, row by row, in pixels; strides in pixels."""
    parts = []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        down_h = (torch.arange(rows, device=device, dtype=torch.float32) + 0.5) * stride
        across_w = (torch.arange(columns, device=device, dtype=torch.float32) + 0.5) * stride
        down_hw, across_hw = torch.meshgrid(down_h, across_w, indexing="ij")
        parts.append(torch.stack([across_hw.reshape(-1), down_hw.reshape(-1)], dim=1))
    return torch.cat(parts)
