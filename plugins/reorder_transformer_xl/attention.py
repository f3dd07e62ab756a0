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
    cells = H * B * segments.count
    query_HBSTE = _segments(query_BLHE * E**-0.5, segments)
    key_XKE, value_XKE = (
        _with_memory(own, memory, segments).reshape(cells, segments.keys, E)
        for own, memory in ((key_BLHE, memory_key_BLHE), (value_BLHE, memory_value_BLHE))
    )
    if position is None:
        mixed_XTE = _by_content(query_HBSTE, key_XKE, value_XKE, bias)
    else:
        mixed_XTE = _by_content_and_distance(query_HBSTE, key_XKE, value_XKE, bias, position)
    mixed_HBSTE = mixed_XTE.reshape(H, B, segments.count, segments.size, E)
    return mixed_HBSTE.permute(1, 2, 3, 0, 4).reshape(B, -1, H, E)[:, :L]


def _by_content(query_HBSTE: Tensor, key_XKE: Tensor, value_XKE: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q·k) v in torch's fused kernel."""
    H, B, S, T, E = query_HBSTE.shape
    if bias is not None:
        K = key_XKE.shape[1]
        bias = bias.to(query_HBSTE.dtype).expand(H, B, S, T, K).reshape(-1, 1, T, K)
    query_X1TE = query_HBSTE.reshape(-1, 1, T, E)
    return functional.scaled_dot_product_attention(
        query_X1TE, key_XKE.unsqueeze(1), value_XKE.unsqueeze(1), attn_mask=bias, scale=1.0
    ).squeeze(1)


def _by_content_and_distance(
    query_HBSTE: Tensor,
    key_XKE: Tensor,
    value_XKE: Tensor,
    bias: Tensor | None,
    position: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    H, B, S, T, E = query_HBSTE.shape
    K = key_XKE.shape[1]
    u_HE, v_HE, r_CHE = position
    scale = E**-0.5
    by_place = (query_HBSTE + v_HE.view(H, 1, 1, 1, E) * scale).reshape(H, -1, E)
    score_XTK = relative_shift(torch.bmm(by_place, r_CHE.permute(1, 2, 0)).reshape(-1, T, r_CHE.shape[0]), K)
    by_content = (query_HBSTE + u_HE.view(H, 1, 1, 1, E) * scale).reshape(-1, T, E)
    score_XTK = score_XTK + torch.bmm(by_content, key_XKE.mT)
    if bias is not None:
        score_XTK = (score_XTK.view(H, B, S, T, K) + bias).view(-1, T, K)
    return torch.bmm(score_XTK.softmax(dim=-1).to(value_XKE.dtype), value_XKE)


def relative_shift(score_XTC: Tensor, K: int) -> Tensor:
    """From scores by distance to scores by key, [X, T, C] -> [X, T, K]: row i moves left by T-1-i (appendix B).

    Column c of the scores stands for the distance M + T - 1 - c; key j is M + i - j before query i. Only views: a row
    reads on into the next one where its distances end, which is hidden by the causal mask.
    """
    T, C = score_XTC.shape[1:]
    flat = score_XTC.flatten(1)[:, T - 1 : T - 1 + T * (C - 1)]
    return flat.unflatten(1, (T, C - 1))[:, :, :K]


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
