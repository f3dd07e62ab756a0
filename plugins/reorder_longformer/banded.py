"""Sliding-window attention in blocks, some heads at a time, with a backward pass of its own: the form for CPUs.

B images, L tokens, H heads, E width of a head; T blocks of S queries and K keys each (see `blocks.py`); R heads of a
tile, those of all its images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from reorder_longformer.blocks import MASKED, Blocks, kept_cut, query_slots

TILE = 1 << 18
"""Scores worked on at once: they and what belongs to them stay in the cache, and no buffer of scores grows with L."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Some heads of some images."""

    images: slice
    heads: slice

    def part(self, tensor_BLHE: Tensor) -> Tensor:
        """A view [images, heads, L, E] of the tile."""
        return tensor_BLHE[self.images, :, self.heads].transpose(1, 2)

    def rows(self, tensor_BLHE: Tensor, dtype: torch.dtype) -> Tensor:
        """[R, L, E]: the heads of the tile, copied side by side."""
        part = self.part(tensor_BLHE)
        return part.new_empty(part.shape, dtype=dtype).copy_(part).flatten(0, 1)

    def put(self, tensor_BLHE: Tensor, rows_RLE: Tensor) -> None:
        """`rows`, back."""
        part = self.part(tensor_BLHE)
        part.copy_(rows_RLE.view(part.shape))


def tiles(images: int, heads: int, scores: int) -> Iterator[Tile]:
    """Tiles of about TILE scores, where one head of one image has `scores` of them."""
    fit = max(1, TILE // scores)
    some_images, some_heads = max(1, fit // heads), min(fit, heads)
    for image in range(0, images, some_images):
        for head in range(0, heads, some_heads):
            yield Tile(
                slice(image, min(image + some_images, images)),
                slice(head, min(head + some_heads, heads)),
            )


@torch.library.custom_op("reorder_longformer::banded", mutates_args=())
def banded(
    query_BLHE: Tensor,
    key_BLHE: Tensor,
    value_BLHE: Tensor,
    valid_BL: Tensor | None,
    window: int,
    dilation: int,
    places: list[int],
) -> tuple[Tensor, Tensor]:
    """Attention within the window and to the global places; output [B, L, H, E] and log2 of the sums [B, H, T*S]."""
    B, L, H, E = query_BLHE.shape
    work = _work_dtype(query_BLHE)
    blocks = kept_cut(L, window, dilation, tuple(places), query_BLHE.device)
    T, S, K = blocks.bias_TSK.shape
    out_BLHE = query_BLHE.new_empty(query_BLHE.shape)
    log_BHt = query_BLHE.new_empty(B, H, T * S, dtype=work)
    # Autocast reaches in here, and would make the scores, whose sums the backward pass relies on, of half precision.
    with torch.autocast(query_BLHE.device.type, enabled=False):
        for tile in tiles(B, H, T * S * K):
            weight, value = _scores(tile, query_BLHE, key_BLHE, valid_BL, blocks)[0], tile.rows(value_BLHE, work)
            top = weight.amax(-1, keepdim=True)
            weight.sub_(top).exp2_()
            total = weight.sum(-1, keepdim=True)
            mixed = torch.bmm(weight, gather(value, blocks.key_TK)).div_(total)
            tile.put(out_BLHE, mixed.view(-1, T * S, E).index_select(1, blocks.slot_L))
            logs = log_BHt[tile.images, tile.heads]
            logs.copy_(total.log2_().add_(top).view(logs.shape))
    return out_BLHE, log_BHt


@torch.library.custom_op("reorder_longformer::banded_backward", mutates_args=())
def banded_backward(
    out_grad_BLHE: Tensor,
    query_BLHE: Tensor,
    key_BLHE: Tensor,
    value_BLHE: Tensor,
    log_BHt: Tensor,
    valid_BL: Tensor | None,
    window: int,
    dilation: int,
    places: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value. The weights are computed again from the scores and `log_BHt`."""
    B, L, H, E = query_BLHE.shape
    blocks = kept_cut(L, window, dilation, tuple(places), query_BLHE.device)
    T, S, K = blocks.bias_TSK.shape
    grads = tuple(query_BLHE.new_empty(query_BLHE.shape) for _ in range(3))
    with torch.autocast(query_BLHE.device.type, enabled=False):
        for tile in tiles(B, H, T * S * K):
            weight, query, key = _scores(tile, query_BLHE, key_BLHE, valid_BL, blocks)
            weight.sub_(log_BHt[tile.images, tile.heads].reshape(-1, S, 1)).exp2_()
            out_grad = gather(tile.rows(out_grad_BLHE, weight.dtype), blocks.query_TS)
            out_grad.view(-1, T * S, E).index_fill_(1, blocks.filling, 0)
            value_grad = torch.bmm(weight.mT, out_grad)
            score_grad = torch.bmm(out_grad, gather(tile.rows(value_BLHE, weight.dtype), blocks.key_TK).mT).mul_(weight)
            score_grad.addcmul_(weight, score_grad.sum(-1, keepdim=True), value=-1)
            query_grad = torch.bmm(score_grad, key).mul_(E**-0.5)
            key_grad = torch.bmm(score_grad.mT, query).mul_(math.log(2))  # query is scaled by log2(e) / sqrt(E)
            tile.put(grads[0], query_grad.view(-1, T * S, E).index_select(1, blocks.slot_L))
            tile.put(grads[1], _collected(key_grad, blocks, places))
            tile.put(grads[2], _collected(value_grad, blocks, places))
    return grads[0], grads[1], grads[2]


def gather(rows_RLE: Tensor, place_TS: Tensor) -> Tensor:
    """[R*T, S, E]: the tokens of each block."""
    return rows_RLE.index_select(1, place_TS.flatten()).view(-1, place_TS.shape[1], rows_RLE.shape[2])


def _scores(
    tile: Tile, query_BLHE: Tensor, key_BLHE: Tensor, valid_BL: Tensor | None, blocks: Blocks
) -> tuple[Tensor, Tensor, Tensor]:
    """Masked scores [R*T, S, K] as powers of two, the scaled queries [R*T, S, E] and the keys [R*T, K, E].

    torch's exp2 took a fifth of the time of exp, which is slow where it underflows.
    """
    work, (T, S, K) = _work_dtype(query_BLHE), blocks.bias_TSK.shape
    scale = math.log2(math.e) / math.sqrt(query_BLHE.shape[-1])
    query = gather(tile.rows(query_BLHE, work).mul_(scale), blocks.query_TS)
    key = gather(tile.rows(key_BLHE, work), blocks.key_TK)
    score = torch.bmm(query, key.mT)
    score.view(-1, T, S, K).add_(blocks.bias_TSK)
    if valid_BL is not None:
        valid_bK = valid_BL[tile.images].index_select(1, blocks.key_TK.flatten())
        images = valid_bK.shape[0]
        score.view(images, -1, T, S, K).masked_fill_(~valid_bK.view(images, 1, T, 1, K), MASKED)
    return score, query, key


def _collected(grad: Tensor, blocks: Blocks, places: list[int]) -> Tensor:
    """From gradients of each block's keys, [R*T, K, E], to those of the tokens, [R, L, E]."""
    (T, K), E = blocks.key_TK.shape, grad.shape[-1]
    flat = grad.view(-1, T * K, E)
    rows_RLE = flat.index_select(1, blocks.column_CL[0])
    for column_L in blocks.column_CL[1:]:
        rows_RLE += flat.index_select(1, column_L)
    if places:
        global_RGE = grad.view(-1, T, K, E)[:, :, K - len(places) :].sum(1)
        rows_RLE.index_add_(1, blocks.key_TK[0, K - len(places) :], global_RGE)
    return rows_RLE


def _work_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@banded.register_fake
def _(
    query_BLHE: Tensor,
    key_BLHE: Tensor,
    value_BLHE: Tensor,
    valid_BL: Tensor | None,
    window: int,
    dilation: int,
    places: list[int],
) -> tuple[Tensor, Tensor]:
    B, L, H, _ = query_BLHE.shape
    slots = query_slots(L, window, dilation, len(places))
    return query_BLHE.new_empty(query_BLHE.shape), query_BLHE.new_empty(B, H, slots, dtype=_work_dtype(query_BLHE))


@banded_backward.register_fake
def _(out_grad_BLHE: Tensor, query_BLHE: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = (query_BLHE.new_empty(query_BLHE.shape) for _ in range(3))
    return one, two, three


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, valid, window, dilation, places = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(query, key, value, output[1], valid)
    ctx.how = (window, dilation, places)


def _back(ctx: Any, out_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*banded_backward(out_grad, *ctx.saved_tensors, *ctx.how), None, None, None, None)


banded.register_autograd(_back, setup_context=_keep)


@register_flop_formula(torch.ops.reorder_longformer.banded)
def banded_flops(
    query: Any, key: Any, value: Any, valid: Any, window: int, dilation: int, places: list[int], *_: Any, **__: Any
) -> int:
    """Scores and mixing of the pairs that are looked at; what the blocks compute besides is not counted."""
    images, L, H, E = query
    return 4 * images * H * L * min(L, window + 1 + len(places)) * E
