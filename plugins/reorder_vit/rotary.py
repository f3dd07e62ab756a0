"""Rotary positions by place: queries and keys are turned by the row and the column that their patch stands in.

B images, N patches, S special tokens, L = N + S, H heads, E width of a head, G orders.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reorder_core import Layout
from reorder_core.layout import insert


class Turn(NamedTuple):
    """Cosine and sine of the angles, [1 or B, 1, L, E/2]: the first quarter of E turns by row, the second by column."""

    cos: Tensor
    sin: Tensor


def axial_angles(places_GN3: Tensor, head_width: int, base: float) -> Tensor:
    """Angles [G, N, E/2] of places (row, column, frame): row and column times base^(-4k/E), k = 0 … E/4 - 1.

    Heo et al., Rotary Position Embedding for Vision Transformer, ECCV 2024 (arXiv 2403.13298), equation 6, base 100.
    """
    quarter = head_width // 4
    exponent_F = torch.arange(quarter, device=places_GN3.device, dtype=torch.float32) / quarter
    frequency_F = torch.pow(base, -exponent_F)
    row_GNF, column_GNF = (places_GN3[..., axis, None] * frequency_F for axis in (0, 1))
    return torch.cat([row_GNF, column_GNF], dim=-1)


def turn_by_place(layout: Layout, head_width: int, base: float) -> Turn:
    """The turn of every token of a sequence; special tokens have no place, and are not turned."""
    angle_GLE = axial_angles(layout.places_GN3(), head_width, base)
    if layout.special:
        still_GSE = angle_GLE.new_zeros(angle_GLE.shape[0], len(layout.special), angle_GLE.shape[2])
        angle_GLE = insert(angle_GLE, still_GSE, layout.special)
    if layout.group_B is not None:
        angle_GLE = angle_GLE[layout.group_B]
    angle_G1LE = angle_GLE.unsqueeze(1)
    return Turn(angle_G1LE.cos(), angle_G1LE.sin())


def rotate(heads_BHLE: Tensor, turn: Turn) -> Tensor:
    """Turn the pairs (k, k + E/2) of every head by their angles."""
    one, other = heads_BHLE.chunk(2, dim=-1)
    turned = torch.cat([one * turn.cos - other * turn.sin, one * turn.sin + other * turn.cos], dim=-1)
    return turned.to(heads_BHLE.dtype)
