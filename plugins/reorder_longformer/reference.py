"""The slow, legible twin: the same attention with every score, L x L, and a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def window_mask(length: int, window: int, dilation: int = 1, global_places: Sequence[int] = ()) -> Tensor:
    """[L, L] bool: whether query i looks at key j, |i - j| being 0, d, 2d, …, (window / 2) d, or j global."""
    place_L = torch.arange(length)
    distance_LL = (place_L[:, None] - place_L).abs()
    mask_LL = (distance_LL % dilation == 0) & (distance_LL <= window // 2 * dilation)
    mask_LL[:, list(global_places)] = True
    return mask_LL


def sliding_window_attention_reference(
    query_BHLE: Tensor,
    key_BHLE: Tensor,
    value_BHLE: Tensor,
    window: int,
    dilation: int = 1,
    global_places: Sequence[int] = (),
    valid_BL: Tensor | None = None,
) -> Tensor:
    """As `sliding_window_attention`, in O(L²) time and memory."""
    L, E = query_BHLE.shape[-2:]
    score_BHLL = query_BHLE @ key_BHLE.mT / E**0.5
    mask = window_mask(L, window, dilation, global_places).to(query_BHLE.device)[None, None]
    if valid_BL is not None:
        mask = mask & valid_BL[:, None, None, :]
    weight_BHLL = score_BHLL.masked_fill(~mask, float("-inf")).softmax(-1)
    if valid_BL is not None:
        weight_BHLL = weight_BHLL.where(valid_BL[:, None, :, None], 0)
    return weight_BHLL @ value_BHLE
