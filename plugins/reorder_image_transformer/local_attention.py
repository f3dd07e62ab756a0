"""Local attention: each query block looks at its memory and at the special tokens, and at nothing else.

B images, H heads, N patches, S special tokens, E width of a head, n blocks, q tokens of a query block, m of its memory.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reorder_image_transformer.blocks import Blocks


def local_attention(
    q_BHNE: Tensor,
    k_BHNE: Tensor,
    v_BHNE: Tensor,
    blocks: Blocks,
    mask_nRqM: Tensor | None = None,
    special_kv_BHSE: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Softmax attention of every query block over its memory (Parmar et al. 2018, section 3.3): [B, N, H × E].

    mask_nRqM: True where a query may look, over M = S + m keys (special tokens first); R is 1 or B × H. It must leave
    out what a memory holds beyond the rectangle, and leave every row a key. No score is formed beyond a block's memory:
    time and memory grow with N × m.
    """
    keys, values = blocks.memories(k_BHNE), blocks.memories(v_BHNE)
    if special_kv_BHSE is not None:
        keys, values = (
            torch.cat([special.expand(inside.shape[0], -1, -1, -1, -1), inside], dim=3)
            for special, inside in zip(special_kv_BHSE, (keys, values), strict=True)
        )
    queries = blocks.queries(q_BHNE)
    # Images and heads stand where SDPA has heads, blocks where it has images: so one mask a block serves them all.
    y_nRqE = functional.scaled_dot_product_attention(
        queries.flatten(1, 2), keys.flatten(1, 2), values.flatten(1, 2), attn_mask=mask_nRqM
    )
    return blocks.join(y_nRqE.view(queries.shape))


def memory_mask(
    number_b1N1: Tensor,
    blocks: Blocks,
    causal: bool,
    valid_b1N1: Tensor | None = None,
    special_at: tuple[int, ...] = (),
) -> Tensor:
    """Where queries may look: bool [n, b, 1, q, S + m], b being 1 or B; one row stands for all q where not causal.

    number_b1N1: each token's number in the order of reading, from 1 on. special_at: for each special token, how many
    patches stand before it. valid_b1N1: False where a token is padding, which is not looked at. Rows without any key
    (of queries beyond the rectangle, and of padding) are left open, so that their softmax is finite.
    """
    keys = number_b1N1 if valid_b1N1 is None else number_b1N1 * valid_b1N1
    memory = blocks.memories(keys).transpose(3, 4)
    query = blocks.queries(number_b1N1)
    mask = (memory > 0) & (memory <= query) if causal else memory > 0
    mask = mask | ~mask.any(dim=-1, keepdim=True)
    if not special_at:
        return mask
    special = mask.new_ones(*mask.shape[:4], len(special_at))
    if causal:
        special = special & (query > torch.tensor(special_at, device=query.device))
    return torch.cat([special, mask], dim=-1)


def special_mask(
    number_b1N1: Tensor, causal: bool, valid_b1N1: Tensor | None = None, special_at: tuple[int, ...] = ()
) -> Tensor | None:
    """Where special tokens may look: bool [b, 1, S, S + N], special tokens first; None: everywhere."""
    if not causal and valid_b1N1 is None:
        return None
    S, device = len(special_at), number_b1N1.device
    patches = number_b1N1.transpose(2, 3)
    seen = patches > 0 if valid_b1N1 is None else valid_b1N1.transpose(2, 3)
    seen = seen.expand(-1, -1, S, -1)
    among = torch.ones(S, S, dtype=torch.bool, device=device)
    if causal:
        seen = seen & (patches <= torch.tensor(special_at, device=device)[:, None])
        among = among.tril()
    return torch.cat([among.expand(seen.shape[0], 1, S, S), seen], dim=-1)
