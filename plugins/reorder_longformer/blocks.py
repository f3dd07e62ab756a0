"""Which keys each block of queries looks at, when a window slides over a sequence.

L tokens, T blocks of S query slots each, K key slots of a block (its window, then the global keys), G global tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

MASKED = -1e30
"""Added to a score that does not count. Finite, so that a row where none counts gives numbers and not NaN."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A sequence cut into blocks of neighbouring queries, each with all keys that one of them may look at.

    query_TS, key_TK: places in the sequence (any place where the slot is only filling).
    bias_TSK: 0 where this query looks at this key, else MASKED; 0 all along a row that is only filling.
    slot_L: where the query of a place stands among the T*S. filling: those of the T*S where no query stands.
    column_CL: where the key of a place stands among the T*K, at most C times; what is left over points at a key that
    no query looks at.
    """

    query_TS: Tensor
    key_TK: Tensor
    bias_TSK: Tensor
    slot_L: Tensor
    filling: Tensor
    column_CL: Tensor


def block_size(window: int, globals_: int) -> int:
    """Queries of a block. Short blocks look at few keys in vain, long ones copy less: about 32 was the fastest.

    With the keys a multiple of 8, matrix products ran up to 1.5 times as fast.
    """
    return 32 - (window + globals_) % 8


def query_slots(length: int, window: int, dilation: int, globals_: int) -> int:
    """T * S: the slots for queries in all blocks."""
    size = block_size(window, globals_)
    return -(-length // (dilation * size)) * dilation * size


def cut(length: int, window: int, dilation: int, places: tuple[int, ...], device: torch.device) -> Blocks:
    """Cut a sequence for `sliding_window_attention`.

    With a dilation of d, the tokens whose places leave the same remainder by d are a sequence of their own, in which
    the window is an ordinary one: blocks are cut from each of these d sequences.
    """
    size = block_size(window, len(places))
    place_L = torch.arange(length, device=device)
    count = -(-length // (dilation * size))  # blocks of each of the d sequences
    block_T = torch.arange(count * dilation, device=device)
    first_T1, remainder_T1 = (block_T % count * size)[:, None], (block_T // count)[:, None]
    query_TS = first_T1 + torch.arange(size, device=device)
    key_TK = first_T1 - window // 2 + torch.arange(size + window, device=device)
    near_TSK = (query_TS[:, :, None] - key_TK[:, None]).abs() <= window // 2
    # From numbers within the block's own sequence to places in the whole one.
    query_TS, key_TK = query_TS * dilation + remainder_T1, key_TK * dilation + remainder_T1
    counts_TK = (key_TK >= 0) & (key_TK < length)
    if places:
        global_G = torch.tensor(places, device=device)
        global_L = torch.zeros_like(place_L, dtype=torch.bool).index_fill(0, global_G, True)
        counts_TK = counts_TK & ~global_L[key_TK.clamp(0, length - 1)]  # global keys stand behind the window
    seen_TSK = near_TSK & counts_TK[:, None]
    if places:
        key_TK = torch.cat([key_TK, global_G.expand(len(block_T), -1)], dim=1)
        seen_TSK = torch.cat([seen_TSK, seen_TSK.new_ones(*query_TS.shape, len(places))], dim=2)
    seen_TSK = seen_TSK | (query_TS >= length)[:, :, None]
    return Blocks(
        query_TS=query_TS.clamp(max=length - 1),
        key_TK=key_TK.clamp(0, length - 1),
        bias_TSK=torch.where(seen_TSK, 0.0, MASKED),
        slot_L=_slots(place_L, dilation, count * size),
        filling=torch.tensor(_filling(length, dilation, count * size), dtype=torch.int64, device=device),
        column_CL=_columns(place_L, dilation, count, size, window, size + window + len(places)),
    )


def _slots(place_L: Tensor, dilation: int, slots: int) -> Tensor:
    return place_L % dilation * slots + place_L // dilation


def _filling(length: int, dilation: int, slots: int) -> list[int]:
    taken = {place % dilation * slots + place // dilation for place in range(length)}
    return [slot for slot in range(dilation * slots) if slot not in taken]


def _columns(place_L: Tensor, dilation: int, count: int, size: int, window: int, keys: int) -> Tensor:
    number_L = place_L // dilation + window // 2  # counted from the first key of the first block
    columns = []
    for back in range(-(-(size + window) // size)):
        block_L = number_L // size - back
        column_L = number_L - block_L * size
        there_L = (block_L >= 0) & (block_L < count) & (column_L < size + window)
        row_L = place_L % dilation * count + block_L
        # Else 0: the first key of the first block stands before the sequence, so that no query looks at it.
        columns.append(torch.where(there_L, row_L * keys + column_L, 0))
    return torch.stack(columns)


@lru_cache(maxsize=4)
def kept_cut(length: int, window: int, dilation: int, places: tuple[int, ...], device: torch.device) -> Blocks:
    """The same, kept: all blocks of a model cut alike, at every step.

    Made as ordinary tensors in inference mode too: what is kept there must serve a training step later.
    """
    with torch.inference_mode(False):
        return cut(length, window, dilation, places, device)
