"""Sliding-window attention by torch's flex attention: the form for GPUs.

B images, L tokens, H heads, E width of a head, n blocks of BLOCK tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128
"""tokens of a block of queries and of keys: flex attention's own choice"""


@cache
def why_not_flex(device_type: str, dtype: torch.dtype, head_width: int) -> str:
    """Empty where compiled flex attention can run, else what is missing."""
    if device_type != "cuda":
        return f"compiled flex attention needs tensors on a CUDA device, not on {device_type}"
    if find_spec("triton") is None:
        return "compiled flex attention needs the package triton, which is not installed here: pip install triton"
    if dtype == torch.float64:
        return "compiled flex attention has no float64"
    if head_width < 16:
        return f"compiled flex attention needs heads of a width of at least 16, not {head_width}"
    return ""


def flex_mask(
    length: int,
    window: int,
    dilation: int,
    global_places: Sequence[int],
    valid_BL: Tensor | None,
    device: torch.device,
) -> BlockMask:
    """Which blocks of keys each block of queries looks at, and who looks at whom within them; O((L / BLOCK)²) memory.

    It is made from the blocks alone: torch's `create_block_mask` would look at all L x L pairs.
    """
    place_L = torch.arange(-(-length // BLOCK) * BLOCK, device=device)
    seen_L = torch.zeros_like(place_L, dtype=torch.bool)
    seen_L[torch.tensor(list(global_places), dtype=torch.int64, device=device)] = True
    block_n = place_L[::BLOCK]
    reach = window // 2 * dilation
    near_nn = (block_n[:, None] - block_n).abs() < reach + BLOCK
    looked_nn = near_nn | seen_L.view(-1, BLOCK).any(1)
    count_n = looked_nn.sum(1, dtype=torch.int32)
    keys_nn = looked_nn.to(torch.int32).argsort(dim=1, descending=True, stable=True).to(torch.int32)

    def looks(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        distance = (i - j).abs()
        near = (distance <= reach) & (distance % dilation == 0)
        seen = near | seen_L[j]
        return seen if valid_BL is None else seen & valid_BL[b, j]

    return BlockMask.from_kv_blocks(
        count_n[None, None], keys_nn[None, None], BLOCK_SIZE=BLOCK, mask_mod=looks, seq_lengths=(length, length)
    )


def flex(query_BHLE: Tensor, key_BHLE: Tensor, value_BHLE: Tensor, mask: BlockMask) -> Tensor:
    """[B, H, L, E]; a query that looks at no key gets zeros."""
    run = flex_attention if torch.compiler.is_compiling() else _compiled()
    output: Tensor = run(query_BHLE, key_BHLE, value_BHLE, block_mask=mask)
    return output


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)
