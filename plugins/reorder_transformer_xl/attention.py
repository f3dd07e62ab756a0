"""Attention of all segments at once, with memory and relative positions (Dai et al. 2019, section 3.3).

B images, L tokens, S segments, T tokens of a segment, M of the memory, K = M + T keys of a segment, H heads,
E width of a head, D width, C rows of the table of distances.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reorder_transformer_xl.segments import Segments


def segment_attention(
    query_BLHE: Tensor,
    key_BLHE: Tensor,
    value_BLHE: Tensor,
    memory_key_BLHE: Tensor,
    memory_value_BLHE: Tensor,
    segments: Segments,
    bias: Tensor | None = None,
    position: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """[B, L, H, E]: each segment's queries over its own keys and those of the memory before it.

    The memory has keys and values of its own, so that the caller decides which gradient flows through them.
    bias: 0 or -inf, broadcastable to [B, S, T, K]: what a query may not see. position: (u_HE, v_HE, r_CHE), the two
    biases and the projected distances in the rows of `distances.descending`. Without it the score is q·k alone, else

        A_ij = (q_i + u)·k_j + (q_i + v)·r_{i-j}        (the four terms of section 3.3), divided by sqrt(E).
    """
    B, L, H, E = query_BLHE.shape
    S, T, K, scale = segments.count, segments.size, segments.keys, E**-0.5
    query_HBSTE = _segments(query_BLHE * scale, segments)
    mask = None if bias is None else bias.to(query_BLHE.dtype).expand(B, S, T, K).reshape(1, B * S, T, K)
    if position is not None:
        u_HE, v_HE, r_CHE = position
        by_distance = _by_distance(query_HBSTE + v_HE.view(H, 1, 1, 1, E) * scale, r_CHE, K)
        mask = by_distance if mask is None else by_distance + mask
        query_HBSTE = query_HBSTE + u_HE.view(H, 1, 1, 1, E) * scale
    # The segments of all images stand where the kernel has its heads: a batch of H with B*S each.
    key_HXKE, value_HXKE = (
        _with_memory(own, memory, segments).reshape(H, B * S, K, E)
        for own, memory in ((key_BLHE, memory_key_BLHE), (value_BLHE, memory_value_BLHE))
    )
    query_HXTE = query_HBSTE.reshape(H, B * S, T, E).to(key_HXKE.dtype)
    mixed_HXTE = functional.scaled_dot_product_attention(
        query_HXTE, key_HXKE, value_HXKE, attn_mask=None if mask is None else mask.to(key_HXKE.dtype), scale=1.0
    )
    mixed_BSTHE = mixed_HXTE.view(H, B, S, T, E).permute(1, 2, 3, 0, 4)
    return mixed_BSTHE.reshape(B, S * T, H, E)[:, :L]


def _by_distance(query_HBSTE: Tensor, r_CHE: Tensor, K: int) -> Tensor:
    """[H, B*S, T, K]: the terms (b) and (d), (q_i + v)·r_{i-j}, for every key of the window."""
    H, B, S, T, E = query_HBSTE.shape
    r_HEC = r_CHE.to(query_HBSTE.dtype).permute(1, 2, 0)
    score_HXTC = torch.bmm(query_HBSTE.reshape(H, -1, E), r_HEC).view(H, B * S, T, -1)
    return relative_shift(score_HXTC, K)


def relative_shift(score_XTC: Tensor, K: int) -> Tensor:
    """From scores by distance to scores by key, [..., T, C] -> [..., T, K]: row i moves left by T-1-i (appendix B).

    Column c of the scores stands for the distance M + T - 1 - c; key j is M + i - j before query i. Only views: a row
    reads on into the next one where its distances end, which is hidden by the causal mask.
    """
    T, C = score_XTC.shape[-2:]
    flat = score_XTC.flatten(-2)[..., T - 1 : T - 1 + T * (C - 1)]
    return flat.unflatten(-1, (T, C - 1))[..., :K]


def _segments(tokens_BLHE: Tensor, segments: Segments) -> Tensor:
    """[B, L, H, E] to [H, B, S, T, E], the last segment filled up with zeros."""
    B, _, H, E = tokens_BLHE.shape
    padded = functional.pad(tokens_BLHE, (0, 0, 0, 0, 0, segments.padding)) if segments.padding else tokens_BLHE
    return padded.view(B, segments.count, segments.size, H, E).permute(3, 0, 1, 2, 4)


def _with_memory(own_BLHE: Tensor, memory_BLHE: Tensor, segments: Segments) -> Tensor:
    """[H, B, S, K, E]: before each segment's own tokens the M that stand before it, zeros where there are none."""
    own_HBSTE = _segments(own_BLHE, segments)
    if not segments.memory:
        return own_HBSTE
    before = memory_BLHE[:, : (segments.count - 1) * segments.size].permute(2, 0, 1, 3)
    padded_HBLE = functional.pad(before, (0, 0, segments.memory, 0))
    window_HBSME = padded_HBLE.unfold(2, segments.memory, segments.size).mT
    return torch.cat([window_HBSME, own_HBSTE], dim=3)


class AlsoInto(torch.autograd.Function):
    """Identity on `y`, whose gradient flows into `x` as well, as if y had been `x @ weight.T`.

    y is the linear layer of a detached x. So one product serves both roles of a token: read by its own segment
    (gradient to x and to the weight) and remembered by later ones (gradient to the weight alone).
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = x.dtype
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return gradient, (gradient @ weight.to(gradient.dtype)).to(ctx.dtype), None
