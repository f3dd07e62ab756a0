"""The slow, legible twin: the papers' index sets as a mask of all pairs, and attention by a matrix of all scores.

N slots, L tokens, E width of a head, l stride, c summary slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def strided_sets(i: int, N: int, stride: int, causal: bool) -> tuple[set[int], set[int]]:
    """A(1) and A(2) of slot i in the strided pattern (Child et al. 2019, section 4.3).

    The paper's: A(1) = {t, t + 1, …, i} with t = max(0, i - l), and A(2) = {j : (i - j) mod l = 0}, j <= i.
    """
    end = i if causal else N - 1
    window = set(range(max(0, i - stride), min(end, i + stride) + 1))
    return window, {j for j in range(end + 1) if (i - j) % stride == 0}


def fixed_sets(i: int, N: int, stride: int, summary: int, causal: bool) -> tuple[set[int], set[int]]:
    """A(1) and A(2) of slot i in the fixed pattern (Child et al. 2019, section 4.3).

    The paper's: A(1) = {j : j // l = i // l}, and A(2) = {j : j mod l in {l - c, …, l - 1}}, j <= i.
    """
    end = i if causal else N - 1
    block = {j for j in range(end + 1) if j // stride == i // stride}
    return block, {j for j in range(end + 1) if j % stride >= stride - summary}


def big_bird_set(i: int, N: int, block: int, edges: int, random: Sequence[int]) -> set[int]:
    """What slot i sees in BigBird's blocks (Zaheer et al. 2020, section 2). random: the random blocks of its block."""
    last = (N - 1) // block
    whole = {0, last} if edges == 2 else {0} if edges else set()
    own = i // block
    if own in whole:
        return set(range(N))
    blocks = whole | {own - 1, own, own + 1} | set(random)
    return {j for j in range(N) if j // block in blocks}


def mask_of(sets: Sequence[set[int]]) -> Tensor:
    """bool [N, N]: whether j is in the set of i. An empty set becomes {i}: its slot keeps its own value."""
    mask = torch.zeros(len(sets), len(sets), dtype=torch.bool)
    for i, seen in enumerate(sets):
        mask[i, sorted(seen or {i})] = True
    return mask


def masked_attention(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, mask_LL: Tensor) -> Tensor:
    """Softmax attention over the pairs that a mask ([L, L], or one a head) allows, by all scores: [B, H, L, E]."""
    scores = (q_BHLE @ k_BHLE.mT) * q_BHLE.shape[-1] ** -0.5
    weights: Tensor = scores.masked_fill(~mask_LL, -torch.inf).softmax(dim=-1)
    return weights @ v_BHLE
