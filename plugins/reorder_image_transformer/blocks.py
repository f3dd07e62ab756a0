"""Query blocks and the memory around them: how a rectangle of tokens is cut, and put together again.

A sequence is a rectangle of one row. B images, H heads, N = rows × columns tokens, E width of a head, n blocks,
q tokens of a query block, m of its memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from reorder_core import Grid
from reorder_image_transformer.settings import ImageTransformerMixerSettings, Pair


@dataclass(frozen=True, slots=True)
class Blocks:
    """Non-overlapping query blocks, and memory that extends each by `before` and `after`: all (rows, columns).

    Parmar et al. 2018, figure 2: in 1-D a block of l_q positions and l_m more; in 2-D a rectangle, extended to the top
    by h_m and to both sides by w_m (here also to the bottom, where the model is not causal). What the rectangle does
    not fill, and what lies outside of it, are zeros, for a mask to leave out.
    """

    whole: Pair
    query: Pair
    before: Pair
    after: Pair

    @classmethod
    def of(cls, settings: ImageTransformerMixerSettings, grid: Grid) -> Blocks:
        """The blocks that settings mean on a grid (of which `settings.misfit` finds nothing wrong)."""
        reach = settings.memory_reach
        if settings.two_dimensional:
            after = (0, reach[1]) if settings.causal else reach
            return cls((grid.rows, grid.columns), settings.query_shape, reach, after)
        return cls((1, grid.size), settings.query_shape, reach, (0, 0) if settings.causal else reach)

    @property
    def counts(self) -> Pair:
        """How many blocks stand below and beside one another."""
        rows, columns = (-(-side // query) for side, query in zip(self.whole, self.query, strict=True))
        return rows, columns

    @property
    def see_all(self) -> bool:
        """Whether every block's memory is the whole rectangle."""
        return all(
            (count - 1) * query <= before and query + after >= side
            for side, query, count, before, after in zip(
                self.whole, self.query, self.counts, self.before, self.after, strict=True
            )
        )

    def queries(self, tokens_BHNE: Tensor) -> Tensor:
        """[n, B, H, q, E]: each token in its block."""
        return _flat(self._cut(tokens_BHNE, (0, 0), (0, 0)))

    def memories(self, tokens_BHNE: Tensor) -> Tensor:
        """[n, B, H, m, E]: each block with the tokens around it, in the order of the rectangle."""
        blocks = self._cut(tokens_BHNE, self.before, self.after)
        for axis in (0, 1):
            blocks = _with_neighbours(blocks, axis, axis + 4, self.before[axis], self.after[axis])
        return _flat(blocks)

    def join(self, blocks_nBHqE: Tensor) -> Tensor:
        """[B, N, H × E]: query blocks put back."""
        (rows, columns), (down, across) = self.counts, self.query
        _, B, H, _, E = blocks_nBHqE.shape
        tokens = blocks_nBHqE.view(rows, columns, B, H, down, across, E).permute(2, 0, 4, 1, 5, 3, 6)
        tokens = tokens.reshape(B, rows * down, columns * across, H * E)
        return tokens[:, : self.whole[0], : self.whole[1]].flatten(1, 2)

    def _cut(self, tokens_BHNE: Tensor, before: Pair, after: Pair) -> Tensor:
        """[rows, columns, B, H, down, across, E], with as many blocks of zeros around as the reach needs."""
        pads: list[int] = []
        for side, query, count, front, back in zip(self.whole, self.query, self.counts, before, after, strict=True):
            pads = [-(-front // query) * query, (count - (-back // query)) * query - side, *pads]
        tokens = tokens_BHNE.unflatten(2, self.whole)
        if any(pads):
            tokens = functional.pad(tokens, (0, 0, *pads))
        (down, across), (rows, columns) = self.query, tokens.shape[2:4]
        cut = tokens.unflatten(3, (columns // across, across)).unflatten(2, (rows // down, down))
        return cut.permute(2, 4, 0, 1, 3, 5, 6)


def _with_neighbours(blocks: Tensor, axis: int, inside: int, before: int, after: int) -> Tensor:
    """Blocks along `axis`, lengthened along `inside` by `before` and `after` entries of their neighbours."""
    size = blocks.shape[inside]
    front, back = -(-before // size), -(-after // size)
    count = blocks.shape[axis] - front - back
    pieces = []
    for shift in range(-front, back + 1):
        piece = blocks.narrow(axis, front + shift, count)
        if shift == -front and before % size:
            piece = piece.narrow(inside, size - before % size, before % size)
        elif shift == back and after % size:
            piece = piece.narrow(inside, 0, after % size)
        pieces.append(piece)
    return torch.cat(pieces, dim=inside) if len(pieces) > 1 else pieces[0]


def _flat(blocks: Tensor) -> Tensor:
    """[rows, columns, B, H, down, across, E] to [rows × columns, B, H, down × across, E]."""
    return blocks.flatten(4, 5).flatten(0, 1)
