"""Merging written as loops over the slots of one image: the legible twin for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_core import Grid


def merged_sequence(tokens_ND: Tensor, factor: int) -> Tensor:
    """Slots 0 … f-1 as the first token, the next f as the second, …; zeros behind the last slot."""
    rows = []
    for start in range(0, len(tokens_ND), factor):
        together = [tokens_ND[slot] for slot in range(start, min(start + factor, len(tokens_ND)))]
        together += [torch.zeros_like(tokens_ND[0])] * (factor - len(together))
        rows.append(torch.cat(together))
    return torch.stack(rows)


def merged_grid(tokens_ND: Tensor, perm: list[int], grid: Grid, factor: int) -> tuple[Tensor, list[int]]:
    """Walk along the sequence; at the first patch of a square write down the whole square, row by row.

    Returns the merged tokens and the numbers of their squares on the coarser grid.
    """
    slot_of = {patch: slot for slot, patch in enumerate(perm)}
    coarse = Grid(-(-grid.rows // factor), -(-grid.columns // factor), grid.frames)
    rows: list[Tensor] = []
    order: list[int] = []
    for patch in perm:
        row, column, frame = grid.place(patch)
        square = coarse.patch(row // factor, column // factor, frame)
        if square in order:
            continue
        order.append(square)
        together = []
        for r in range(row // factor * factor, row // factor * factor + factor):
            for c in range(column // factor * factor, column // factor * factor + factor):
                inside = r < grid.rows and c < grid.columns
                together.append(
                    tokens_ND[slot_of[grid.patch(r, c, frame)]] if inside else torch.zeros_like(tokens_ND[0])
                )
        rows.append(torch.cat(together))
    return torch.stack(rows), order
