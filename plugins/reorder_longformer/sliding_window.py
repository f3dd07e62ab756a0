"""Sliding-window attention with global keys: one function, and what computes it on this machine.

B images, L tokens, H heads, E width of a head, G global tokens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from reorder_core import RunError, UsageError
from reorder_longformer.banded import banded
from reorder_longformer.blocks import MASKED, cut

Backend = Literal["auto", "banded", "flex"]

_log = logging.getLogger(__name__)


def sliding_window_attention(
    query_BHLE: Tensor,
    key_BHLE: Tensor,
    value_BHLE: Tensor,
    window: int,
    dilation: int = 1,
    global_places: Sequence[int] = (),
    valid_BL: Tensor | None = None,
    backend: Backend = "auto",
    mask: Any = None,
) -> Tensor:
    """Softmax attention of each query to the keys in its window and to the global keys, scaled by 1 / sqrt(E).

    Beltagy et al. 2020 (arXiv 2004.05150), section 3.1; output [B, H, L, E] in query's dtype. A query at place i looks
    at itself, at the places i ± d, …, i ± (window / 2) d, d being the dilation, and at every place of `global_places`;
    each key counts once, in one softmax. valid_BL: False where a place is padding: nobody looks at it, and its own
    output is zero. What global *queries* see is another matter, see `LongformerMixer`.

    Time and memory are linear in L. `banded` runs anywhere, in float32 (float64 for float64); `flex` is torch's
    compiled flex attention, and takes its `mask` where the caller has made it (`flex_mask`). `auto` takes flex where
    it can run, and says once in the log which one does. Raises `RunError` for `flex` where it can not.
    """
    places = [int(place) for place in global_places]
    if torch.compiler.is_exporting():
        out_BHLE = _written_out(query_BHLE, key_BHLE, value_BHLE, window, dilation, tuple(places), valid_BL)
    elif choose_backend(backend, query_BHLE.device, query_BHLE.dtype, query_BHLE.shape[-1]) == "flex":
        from reorder_longformer.flex import flex, flex_mask

        length, device = query_BHLE.shape[2], query_BHLE.device
        mask = flex_mask(length, window, dilation, places, valid_BL, device) if mask is None else mask
        out_BHLE = flex(query_BHLE, key_BHLE, value_BHLE, mask)
    else:
        query, key, value = (tensor.transpose(1, 2) for tensor in (query_BHLE, key_BHLE, value_BHLE))
        out_BHLE = banded(query, key, value, valid_BL, window, dilation, places)[0].transpose(1, 2)
    return out_BHLE if valid_BL is None else out_BHLE.masked_fill(~valid_BL[:, None, :, None], 0)


def choose_backend(
    backend: Backend, device: torch.device, dtype: torch.dtype, head_width: int
) -> Literal["banded", "flex"]:
    """What computes the attention of such tensors."""
    if backend == "banded":
        return "banded"
    if device.type != "cuda" and backend == "auto":
        _say_once(device.type, "")
        return "banded"
    from reorder_longformer.flex import why_not_flex

    missing = why_not_flex(device.type, dtype, head_width)
    if backend == "flex":
        if missing:
            raise RunError(f"attention_backend 'flex' can not run: {missing}; choose 'auto' or 'banded'")
        return "flex"
    _say_once(device.type, missing)
    return "banded" if missing else "flex"


def check_backend(backend: Backend, head_width: int) -> None:
    """Refuse flex attention where it can run nowhere on this machine, before anything is built. Raises UsageError."""
    if backend != "flex":
        return
    from reorder_longformer.flex import why_not_flex

    cuda = torch.cuda.is_available()
    missing = why_not_flex("cuda", torch.float32, head_width) if cuda else "there is no CUDA device here"
    if missing:
        raise UsageError(
            f"the backbone's attention_backend 'flex' can not run: {missing}; choose attention_backend: auto or banded"
        )


def _say_once(device_type: str, missing: str) -> None:
    # A compiler follows neither logging nor caches: there is nothing to follow, and what runs is said by an eager pass.
    if not torch.compiler.is_compiling():
        _say(device_type, missing)


@cache
def _say(device_type: str, missing: str) -> None:
    if device_type != "cuda":
        _log.info("sliding-window attention on %s: banded, in pure torch", device_type)
    elif missing:
        _log.warning("sliding-window attention on cuda: banded, which is slower than flex attention: %s", missing)
    else:
        _log.info("sliding-window attention on cuda: compiled flex attention")


def _written_out(
    query_BHLE: Tensor,
    key_BHLE: Tensor,
    value_BHLE: Tensor,
    window: int,
    dilation: int,
    places: tuple[int, ...],
    valid_BL: Tensor | None,
) -> Tensor:
    """The same blocks all at once, for an exported graph: torch's own operators only. T blocks of S queries, K keys."""
    L, E = query_BHLE.shape[2:]
    blocks = cut(L, window, dilation, places, query_BHLE.device)
    (T, S), K = blocks.query_TS.shape, blocks.key_TK.shape[1]
    query = query_BHLE.index_select(2, blocks.query_TS.flatten()).unflatten(2, (T, S))
    key, value = (each.index_select(2, blocks.key_TK.flatten()).unflatten(2, (T, K)) for each in (key_BHLE, value_BHLE))
    score = query @ key.mT / math.sqrt(E) + blocks.bias_TSK.to(query.dtype)
    if valid_BL is not None:
        valid = valid_BL.index_select(1, blocks.key_TK.flatten()).view(-1, 1, T, 1, K)
        score = score.masked_fill(~valid, MASKED)
    return (score.softmax(-1) @ value).flatten(2, 3).index_select(2, blocks.slot_L)
