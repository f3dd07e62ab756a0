"""Full attention with rotary positions by place as two loops over queries and keys: the legible twin for tests.

B images, L tokens, D width, H heads, E width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reorder_vit.attention import FullAttention

Place = tuple[int, int] | None  # row and column of a token's patch; None for a special token


def turned(head_BE: Tensor, place: Place, base: float) -> Tensor:
    """A query or key as E/2 complex numbers (channel k the real part, k + E/2 the imaginary one), each turned by
    exp(i · row · base^(-4k/E)) in the first half of them, exp(i · column · base^(-4k/E)) in the second."""
    half = head_BE.shape[1] // 2
    numbers_BF = torch.complex(head_BE[:, :half], head_BE[:, half:])
    if place is None:
        return numbers_BF
    quarter = half // 2
    angles = [axis * base ** (-k / quarter) for axis in place for k in range(quarter)]
    turns = [complex(math.cos(angle), math.sin(angle)) for angle in angles]
    return numbers_BF * torch.tensor(turns, dtype=numbers_BF.dtype)


def attention(module: FullAttention, tokens_BLD: Tensor, places: list[Place], base: float) -> Tensor:
    """What `module` must give for tokens whose patches stand at `places`, [B, L, D]: a pair of tokens at a time.

    The real part of (turned query) · conj(turned key) is their inner product, which depends on places only by their
    difference (Su et al. 2021, RoFormer, equation 12, on two axes).
    """
    _, L, D = tokens_BLD.shape
    E = D // module.heads
    q_BLD, k_BLD, v_BLD = (tokens_BLD @ module.qkv.weight.T + module.qkv.bias).chunk(3, dim=2)
    outputs = []
    for i in range(L):
        heads = []
        for h in range(module.heads):
            own = slice(h * E, (h + 1) * E)
            query_BF = turned(q_BLD[:, i, own], places[i], base)
            keys = [turned(k_BLD[:, j, own], places[j], base) for j in range(L)]
            scores = [(query_BF * key_BF.conj()).real.sum(dim=1) / math.sqrt(E) for key_BF in keys]
            weight_BL = torch.stack(scores, dim=1).softmax(dim=1)
            heads.append(torch.stack([weight_BL[:, j, None] * v_BLD[:, j, own] for j in range(L)]).sum(dim=0))
        outputs.append(torch.cat(heads, dim=1))
    return torch.stack(outputs, dim=1) @ module.proj.weight.T + module.proj.bias
