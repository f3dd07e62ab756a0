"""From the levels of a backbone back to the grid of the first: what stands where in the image.

B images, N and M slots of a finer and of a coarser level, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reorder_core import Grid, Layout


def on_grid(tokens_BND: Tensor, layouts: Sequence[Layout], level: int = 0) -> Tensor:
    """Tokens of a level, in reading order, as patches of the first level's grid in patch order, [B, N of the first, D].

    layouts: of all levels, finest first. A token that stands for several patches is repeated on each of them.
    """
    along = len(layouts) > 1 and merged_along_sequence(layouts[0].grid, layouts[1].grid)
    for number in range(level, 0, -1):
        tokens_BND = _on_finer(tokens_BND, layouts[number], layouts[number - 1], along)
    return layouts[0].restore(tokens_BND)


def _on_finer(tokens_BMD: Tensor, coarse: Layout, fine: Layout, along: bool) -> Tensor:
    """Tokens of a level in its reading order, repeated, in the reading order of the level that it was merged from.

    How many were merged follows from the sizes: ⌈N/M⌉, or ⌈rows/rows⌉ × ⌈columns/columns⌉. Tokens that were merged
    along the sequence stand on a line, and place m of it holds the slots from m·⌈N/M⌉ on.
    """
    placed_BMD = coarse.restore(tokens_BMD)
    B, M, D = placed_BMD.shape
    rows, columns = fine.grid.rows, fine.grid.columns
    if along:
        return placed_BMD.repeat_interleave(-(-fine.grid.size // M), dim=1)[:, : fine.grid.size]
    down, across = -(-rows // coarse.grid.rows), -(-columns // coarse.grid.columns)
    squares = placed_BMD.reshape(B, coarse.grid.rows, coarse.grid.columns, D)
    spread = squares.repeat_interleave(down, dim=1).repeat_interleave(across, dim=2)[:, :rows, :columns]
    return fine.order(spread.reshape(B, rows * columns, D))


def merged_along_sequence(first: Grid, second: Grid) -> bool:
    """Whether tokens of the second level, in one row, are neighbours of the sequence, and no squares of patches.

    Told by the grids alone: no squares of one side give that row, or the image has but one row of patches itself.
    """
    of_squares = {-(-first.columns // side) for side in range(first.rows, first.columns + 1)}
    return second.rows == 1 and (first.rows == 1 or second.columns not in of_squares)
