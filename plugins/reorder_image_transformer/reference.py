"""The slow, legible twin: the paper's neighbourhoods as an explicit mask of all pairs, built by a loop over slots.

L tokens, N patches, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def allowed_pairs(
    places: Sequence[tuple[int, int]],
    numbers: Sequence[int],
    query: tuple[int, int],
    memory: tuple[int, int],
    causal: bool,
) -> Tensor:
    """Whether token i may look at token j, bool [N, N] (Parmar et al. 2018, section 3.3).

    places: (row, column) of each token in the rectangle that is cut. numbers: its number in the order of reading.
    The query block of i is the one that its row and column fall into; j must lie within `memory` rows and columns of
    that block, and causal: neither lie below the block nor come after i.
    """
    mask = torch.zeros(len(places), len(places), dtype=torch.bool)
    below = 0 if causal else memory[0]
    for i, (row, column) in enumerate(places):
        top, left = row // query[0] * query[0], column // query[1] * query[1]
        for j, (r, c) in enumerate(places):
            inside = (
                top - memory[0] <= r < top + query[0] + below and left - memory[1] <= c < left + query[1] + memory[1]
            )
            mask[i, j] = inside and not (causal and numbers[j] > numbers[i])
    return mask


def masked_attention(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, mask_LL: Tensor) -> Tensor:
    """Softmax attention over the pairs that a mask allows, by a matrix of all scores: [B, H, L, E]."""
    scores = (q_BHLE @ k_BHLE.mT) * q_BHLE.shape[-1] ** -0.5
    weights: Tensor = scores.masked_fill(~mask_LL, -torch.inf).softmax(dim=-1)
    return weights @ v_BHLE
