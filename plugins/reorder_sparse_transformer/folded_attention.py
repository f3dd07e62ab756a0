"""Attention over folds: one part by itself, or several parts in one softmax. No N × N scores are formed.

R rows (images × heads), N patches, S special tokens, E width of a head, f folds, q queries and m keys of a fold,
M = S + m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from reorder_sparse_transformer.folds import Fold

Special = tuple[Tensor, Tensor]
"""Keys and values of the special tokens, [R, S, E] each."""


class Part(NamedTuple):
    """A fold, where its queries may look, and which of them see nothing at all.

    mask: [r, f, q or 1, M], r being 1 or R, special tokens first; None: everywhere. Every row must have a key (in one
    of the parts, where several share a softmax). alone: [r, N, 1], True where a slot sees nothing; None: nowhere.
    """

    fold: Fold
    mask: Tensor | None
    alone: Tensor | None = None


def folded_attention(q_RNE: Tensor, k_RNE: Tensor, v_RNE: Tensor, part: Part, special: Special | None = None) -> Tensor:
    """Softmax attention of one part, [R, N, E]; a slot that sees nothing keeps its own value."""
    fold, mask = part.fold, part.mask
    keys, values = _keys(fold, k_RNE, special, 0), _keys(fold, v_RNE, special, 1)
    # Rows stand where SDPA has heads, folds where it has images: so one mask a fold serves all rows.
    y_fRqE = functional.scaled_dot_product_attention(
        fold.queries(q_RNE).transpose(0, 1),
        keys.transpose(0, 1),
        values.transpose(0, 1),
        attn_mask=None if mask is None else mask.transpose(0, 1),
    )
    y_RNE = fold.join(y_fRqE.transpose(0, 1), q_RNE.shape[1])
    return y_RNE if part.alone is None else torch.where(part.alone, v_RNE, y_RNE)


def merged_attention(
    q_RNE: Tensor, k_RNE: Tensor, v_RNE: Tensor, parts: Sequence[Part], special: Special | None = None
) -> Tensor:
    """Softmax attention over the union of several parts, [R, N, E]. Their masks must not allow a pair twice.

    The scores of all parts stand side by side, N × (m of the first + m of the second + …) a row, and share one
    softmax. Special tokens belong to the first part.
    """
    N = q_RNE.shape[1]
    q_RNE = q_RNE * q_RNE.shape[-1] ** -0.5
    scores, values = [], []
    for number, (fold, mask, _) in enumerate(parts):
        own = special if number == 0 else None
        values.append(_keys(fold, v_RNE, own, 1))
        score = fold.queries(q_RNE) @ _keys(fold, k_RNE, own, 0).mT
        scores.append(fold.join(score if mask is None else score.masked_fill(~mask, -torch.inf), N))
    weights = torch.cat(scores, dim=-1).softmax(dim=-1).split([score.shape[-1] for score in scores], dim=-1)
    mixed = [
        part.fold.join(part.fold.queries(weight) @ value, N)
        for part, weight, value in zip(parts, weights, values, strict=True)
    ]
    return sum(mixed[1:], start=mixed[0])


def _keys(fold: Fold, tokens_RNE: Tensor, special: Special | None, which: int) -> Tensor:
    """The keys (or values) of a fold, special tokens first: [R, f, M, E]."""
    inside = fold.keys(tokens_RNE)
    if special is None:
        return inside
    return torch.cat([special[which].unsqueeze(1).expand(-1, inside.shape[1], -1, -1), inside], dim=2)
