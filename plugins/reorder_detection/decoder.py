"""The decoder of the head `detr`: queries that look at each other and at the sequence.

B images, N patches or slots, Q queries, E width of the decoder, H heads, F width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Seen(NamedTuple):
    """What queries look at. value_BNE: the tokens; key_BNE: the same with positions; place_BNE: sines of the places
    of their patches, [1, N, E] where all images are read in one order, None where nobody looks for places; visible_BN:
    False for padding, None for all."""

    key_BNE: Tensor
    value_BNE: Tensor
    place_BNE: Tensor | None
    visible_BN: Tensor | None


class Asked(NamedTuple):
    """What tells queries apart. query_BQE: their positions, added where they look for something (None: anchors that do
    not look at each other); centre_BQE: sines of the centres of their anchors, None where they have none."""

    query_BQE: Tensor | None
    centre_BQE: Tensor | None


def sines(place_2: Tensor, width: int) -> Tensor:
    """`reorder_core.model.sincos2d` for any places (row, column), not those of a grid alone: [..., 2] -> [..., E]."""
    quarter = width // 4
    frequency_F = 10000 ** (-torch.arange(quarter, dtype=torch.float32, device=place_2.device) / quarter)
    row, column = (place_2[..., axis, None].float() * frequency_F for axis in (0, 1))
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=-1)


class PlainAttention(nn.Module):
    """Cross-attention as published for DETR: a query's position is added to what it knows."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, state_BQE: Tensor, asked: Asked, seen: Seen) -> Tensor:
        """What was found, [B, Q, E]."""
        assert asked.query_BQE is not None
        padding_BN = None if seen.visible_BN is None else ~seen.visible_BN
        found_BQE: Tensor = self.attend(
            state_BQE + asked.query_BQE,
            seen.key_BNE,
            seen.value_BNE,
            key_padding_mask=padding_BN,
            need_weights=False,
        )[0]
        return found_BQE


class ConditionalAttention(nn.Module):
    """Cross-attention in which two products are added: of what a query knows with the keys, and of its anchor's centre
    with the places of the patches (Meng et al. 2021, arXiv 2108.06152, section 3.3).

    What a query knows scales the sines of its anchor's centre. Queries and keys have twice the width of the values. The
    keys have their positions in every layer (published: in the first).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.centre, self.place = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = Mlp(width, width, act_layer=nn.ReLU)

    def forward(self, state_BQE: Tensor, asked: Asked, seen: Seen) -> Tensor:
        """What was found, [B, Q, E]."""
        assert asked.centre_BQE is not None
        assert seen.place_BNE is not None
        centre_BHQF = self._split(self.centre(asked.centre_BQE * self.scale(state_BQE)))
        place_BHNF = self._split(self.place(seen.place_BNE))
        query_BHQF, key_BHNF = self._split(self.query(state_BQE)), self._split(self.key(seen.key_BNE))
        mixed_BHQF = scaled_dot_product_attention(
            torch.cat([query_BHQF, centre_BHQF], dim=3),
            torch.cat([key_BHNF, place_BHNF.expand_as(key_BHNF)], dim=3),
            self._split(self.value(seen.value_BNE)),
            attn_mask=None if seen.visible_BN is None else seen.visible_BN[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        found_BQE: Tensor = self.out(mixed_BHQF.transpose(1, 2).flatten(2))
        return found_BQE

    def _split(self, tokens_BTE: Tensor) -> Tensor:
        B, T, E = tokens_BTE.shape
        return tokens_BTE.reshape(B, T, self.heads, E // self.heads).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Queries look at each other and at the sequence, then an MLP; norms come after, as published.

    first: queries have seen nothing yet, and do not look at each other (which the paper says can be left out).
    """

    def __init__(self, width: int, heads: int, dropout: float, first: bool, anchors: bool) -> None:
        super().__init__()
        self.among = None if first else nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm_among = None if first else nn.LayerNorm(width)
        self.across = (ConditionalAttention if anchors else PlainAttention)(width, heads, dropout)
        self.mlp = Mlp(width, 4 * width, act_layer=nn.ReLU, drop=dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm_across, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, state_BQE: Tensor, asked: Asked, seen: Seen) -> Tensor:
        """What the queries know after this layer, [B, Q, E]."""
        if self.among is not None and self.norm_among is not None:
            assert asked.query_BQE is not None
            asking_BQE = state_BQE + asked.query_BQE
            found_BQE, _ = self.among(asking_BQE, asking_BQE, state_BQE, need_weights=False)
            state_BQE = self.norm_among(state_BQE + self.dropout(found_BQE))
        state_BQE = self.norm_across(state_BQE + self.dropout(self.across(state_BQE, asked, seen)))
        known_BQE: Tensor = self.norm_mlp(state_BQE + self.dropout(self.mlp(state_BQE)))
        return known_BQE
