"""Stochastic layer-wise shuffle. B images, N patches or slots, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reorder_core import Context, Layout

if TYPE_CHECKING:
    from reorder_dynamic.settings import LayerShuffleSettings


class LayerShuffle(nn.Module):
    """In training, block l of L (1 … L) reads its patches in a uniformly random order with probability p · l / L; after
    it they stand as before (Huang et al. 2025, arXiv 2408.17081, section 3.2). In evaluation nothing is shuffled.

    All images of a batch share the shuffle, as in the paper. Two things are ours: special tokens keep their places, and
    the first block is never shuffled (its share is p / L; nothing stands between it and the embedding).
    """

    def __init__(self, settings: LayerShuffleSettings, context: Context) -> None:
        super().__init__()
        self.probability = settings.probability
        self.depth = 1
        self._home: Layout | None = None
        self._back_N: Tensor | None = None

    def prepare(self, depth: int) -> None:
        """Any number of blocks will do."""
        self.depth = depth

    def forward(self, k: int, tokens_BND: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Undo the shuffle that block k read, and draw that of block k + 1; the last block is followed by none."""
        if not self.training:
            return tokens_BND, layout
        if k > 0 and self._back_N is not None:
            assert self._home is not None
            tokens_BND, layout = tokens_BND.index_select(1, self._back_N), self._home
        self._home = self._back_N = None
        if k + 1 == self.depth or float(torch.rand(())) >= self.probability * (k + 2) / self.depth:
            return tokens_BND, layout
        shuffle_N = torch.randperm(tokens_BND.shape[1]).to(tokens_BND.device)
        self._home, self._back_N = layout, shuffle_N.argsort()
        return tokens_BND.index_select(1, shuffle_N), layout.rearranged(shuffle_N)
