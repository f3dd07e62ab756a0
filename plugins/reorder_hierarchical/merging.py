"""Merging neighbours: a shorter sequence of wider tokens, and the layout that it has.

B images, N slots before, M slots after, D width, G orders, f factor, R layouts that a mixer is given at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Grid, Layout

Merged = tuple[Tensor, tuple[Layout, ...]]


class Merge(nn.Module):
    """Neighbours side by side, then a norm and one linear layer to the next width: Swin's patch merging (Liu et al.
    2021, section 3.1). `by_grid`: squares of f × f patches in place of f neighbours of the sequence.

    Where a square or the end of the sequence is incomplete, zeros stand in for what is missing, and for padding.
    """

    def __init__(self, width: int, next_width: int, factor: int, by_grid: bool) -> None:
        super().__init__()
        together = (factor**2 if by_grid else factor) * width
        self.factor, self.by_grid = factor, by_grid
        self.norm = nn.LayerNorm(together, eps=1e-6)
        self.reduction = nn.Linear(together, next_width, bias=False)

    def forward(self, tokens_BND: Tensor, layouts: Sequence[Layout]) -> Merged:
        """[B, N, D] in the order of the first layout to [B, M, D'], and all layouts of the merged tokens."""
        merged_BMD, after = (side_by_side_on_grid if self.by_grid else side_by_side)(tokens_BND, layouts, self.factor)
        return self.reduction(self.norm(merged_BMD)), after


def side_by_side(tokens_BND: Tensor, layouts: Sequence[Layout], factor: int) -> Merged:
    """`factor` consecutive slots as one, [B, ⌈N/f⌉, f·D].

    The merged tokens stand on a line, `Grid(1, M)`, in the order 0 … M-1. A further layout of a cross-scan reads them
    as it first reaches one of their patches.
    """
    first = layouts[0]
    N = tokens_BND.shape[1]
    M = -(-N // factor)
    line, missing = Grid(1, M), M * factor - N
    tokens_BND = _without_padding(tokens_BND, first)
    merged_BMD = functional.pad(tokens_BND, (0, 0, 0, missing)).reshape(tokens_BND.shape[0], M, -1)
    valid_BM = None
    if first.valid_BN is not None:
        valid_BM = functional.pad(first.valid_BN, (0, missing)).reshape(-1, M, factor).any(dim=2)
    ahead = Layout(line, torch.arange(M, device=first.perm_GN.device)[None], valid_BN=valid_BM)
    further = [_read_along(other, first, line, factor, tokens_BND.shape[0]) for other in layouts[1:]]
    return merged_BMD, (ahead, *further)


def side_by_side_on_grid(tokens_BND: Tensor, layouts: Sequence[Layout], factor: int) -> Merged:
    """Squares of `factor` × `factor` patches as one, [B, M, f²·D], the patches of a square row by row.

    The merged tokens stand on the coarser grid, in the order in which each layout first reaches a square.
    """
    first = layouts[0]
    squares_BMD, coarse = _squares(first.restore(_without_padding(tokens_BND, first)), first.grid, factor)
    after = []
    for layout in layouts:
        perm_GM = first_reached(_cell_of_slot(layout, coarse, factor), coarse.size)
        after.append(Layout(coarse, perm_GM, layout.group_B))
    if first.valid_BN is not None:
        placed_BN1 = first.restore(first.valid_BN.unsqueeze(-1))
        valid_BM = _squares(placed_BN1, first.grid, factor)[0].any(dim=2, keepdim=True)
        after[0] = replace(after[0], valid_BN=after[0].order(valid_BM).squeeze(-1))
    return after[0].order(squares_BMD), tuple(after)


def first_reached(cell_GN: Tensor, M: int) -> Tensor:
    """The M cells in the order in which a sequence of their numbers first names each, int64 [G, M]."""
    slot_GN = torch.arange(cell_GN.shape[1], device=cell_GN.device).expand_as(cell_GN)
    never_GM = slot_GN.new_full((cell_GN.shape[0], M), cell_GN.shape[1])
    return never_GM.scatter_reduce(1, cell_GN, slot_GN, "amin").argsort(dim=1)


def _squares(patches_BND: Tensor, grid: Grid, factor: int) -> tuple[Tensor, Grid]:
    """Patches in patch order as squares in the order of the coarser grid, [B, M, f²·D], and that grid."""
    B, _, D = patches_BND.shape
    coarse = Grid(-(-grid.rows // factor), -(-grid.columns // factor), grid.frames)
    on_grid = patches_BND.reshape(B * grid.frames, grid.rows, grid.columns, D)
    below, beside = coarse.rows * factor - grid.rows, coarse.columns * factor - grid.columns
    on_grid = functional.pad(on_grid, (0, 0, 0, beside, 0, below))
    cut = on_grid.reshape(B * grid.frames, coarse.rows, factor, coarse.columns, factor, D)
    return cut.transpose(2, 3).reshape(B, coarse.size, factor * factor * D), coarse


def _cell_of_slot(layout: Layout, coarse: Grid, factor: int) -> Tensor:
    """The number of the square that each slot's patch lies in, int64 [G, N]."""
    row_GN, column_GN, frame_GN = layout.places_GN3().unbind(dim=-1)
    return (frame_GN * coarse.rows + row_GN // factor) * coarse.columns + column_GN // factor


def _read_along(other: Layout, first: Layout, line: Grid, factor: int, B: int) -> Layout:
    """How `other` reads the tokens merged along `first`; an order for each image where `first` has several."""
    cell_of_patch_GN = first.slot_GN // factor
    if first.group_B is None:
        return Layout(line, first_reached(cell_of_patch_GN[0][other.perm_GN], line.size), other.group_B)
    perm_BN = other.perm_GN.expand(B, -1) if other.group_B is None else other.perm_GN[other.group_B]
    cell_BN = cell_of_patch_GN[first.group_B].gather(1, perm_BN)
    return Layout(line, first_reached(cell_BN, line.size), torch.arange(B, device=perm_BN.device))


def _without_padding(tokens_BND: Tensor, layout: Layout) -> Tensor:
    return tokens_BND if layout.valid_BN is None else tokens_BND * layout.valid_BN.unsqueeze(-1)
