"""BigBird's blocks: each sees the blocks around it, the global ones and some random ones.

B images, H heads, N patches, S special tokens, E width of a head, b slots of a block, n blocks, g of them global,
w = n - g others, r random blocks, m = g + 3 + r blocks that each of those looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from reorder_sparse_transformer.sequence_places import Places

_PRIME = 2**31 - 1


class BlockPlan(NamedTuple):
    """block_HWm: which blocks the blocks of each head look at. mask: [H × w, 1 or B, 1, S + m × b].

    global_mask: [B, 1, 1, S + N], or None where there is no padding.
    """

    block_HWm: Tensor
    mask: Tensor
    global_mask: Tensor | None


@dataclass(frozen=True, slots=True)
class BigBird:
    """Zaheer et al. 2020, section 2, internal construction (ITC): some blocks of the sequence itself are global.

    global_blocks: 0, 1 (the first) or 2 (the first and the last, as in the released code). random_blocks: r for each
    block and head, of those that are neither global nor around it.
    """

    block: int
    global_blocks: int
    random_blocks: int
    seed: int

    def sees_all(self, N: int) -> bool:
        """Never: with 3 + g + r blocks or more, some slot misses a block."""
        return False

    def plan(self, places: Places, heads: int) -> BlockPlan:
        """Which blocks are looked at, and what of them is no padding."""
        N = places.number_1N1.shape[1]
        n = -(-N // self.block)
        block_HWm, new_HWm = looked_at(
            n, heads, self.global_blocks, self.random_blocks, self.seed, places.key_bN1.device
        )
        key_bnb = functional.pad(places.key_bN1.squeeze(2) > 0, (0, n * self.block - N)).unflatten(1, (n, self.block))
        mask = (key_bnb[:, block_HWm] & new_HWm[..., None]).flatten(3).permute(1, 2, 0, 3).flatten(0, 1)
        mask = torch.cat([mask.new_ones(*mask.shape[:2], len(places.special_at)), mask], dim=2)
        mask = mask | ~mask.any(dim=2, keepdim=True)
        seen = None
        if places.padded:
            seen = functional.pad(places.key_bN1.transpose(1, 2) > 0, (len(places.special_at), 0), value=True)
        return BlockPlan(block_HWm, mask.unsqueeze(2), None if seen is None else seen.unsqueeze(1))

    def attend(
        self, q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, special_kv: tuple[Tensor, Tensor] | None, plan: BlockPlan
    ) -> Tensor:
        """[B, H, N, E]. special_kv: keys and values of the special tokens, [B, H, S, E] each."""
        N, first, last = q_BHNE.shape[2], self.global_blocks > 0, self.global_blocks > 1
        stop = (-(-N // self.block) - 1) * self.block if last else N
        start = self.block if first else 0
        y_BHNE = self._sparse(q_BHNE, k_BHNE, v_BHNE, special_kv, plan)[:, :, : stop - start]
        if not first:
            return y_BHNE
        ends = [q_BHNE[:, :, :start], q_BHNE[:, :, stop:]]
        if special_kv is not None:
            k_BHNE, v_BHNE = torch.cat([special_kv[0], k_BHNE], dim=2), torch.cat([special_kv[1], v_BHNE], dim=2)
        ends_BHGE = functional.scaled_dot_product_attention(
            torch.cat(ends, dim=2), k_BHNE, v_BHNE, attn_mask=plan.global_mask
        )
        return torch.cat([ends_BHGE[:, :, :start], y_BHNE, ends_BHGE[:, :, start:]], dim=2)

    def _sparse(
        self, q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, special_kv: tuple[Tensor, Tensor] | None, plan: BlockPlan
    ) -> Tensor:
        """What the blocks that are not global see, [B, H, w × b, E]."""
        B, H, _, E = q_BHNE.shape
        first, last = int(self.global_blocks > 0), int(self.global_blocks > 1)
        queries = self._blocks(q_BHNE)
        n = queries.shape[1]
        queries = queries[:, first : n - last].flatten(0, 1)
        # A gather of whole blocks [B, b, E]; heads and blocks stand where SDPA has images, images where it has heads.
        row_X = (plan.block_HWm + n * torch.arange(H, device=q_BHNE.device)[:, None, None]).flatten()
        pair = []
        for which, tensor in enumerate((k_BHNE, v_BHNE)):
            seen = self._blocks(tensor).flatten(0, 1).index_select(0, row_X)
            seen = seen.unflatten(0, (queries.shape[0], -1)).transpose(1, 2).flatten(2, 3)
            if special_kv is not None:
                special_HBSE = special_kv[which].transpose(0, 1)
                special = special_HBSE.unsqueeze(1).expand(-1, n - first - last, -1, -1, -1).flatten(0, 1)
                seen = torch.cat([special, seen], dim=2)
            pair.append(seen)
        y = functional.scaled_dot_product_attention(queries, *pair, attn_mask=plan.mask)
        return y.unflatten(0, (H, -1)).permute(2, 0, 1, 3, 4).reshape(B, H, -1, E)

    def _blocks(self, tokens_BHNE: Tensor) -> Tensor:
        """[H, n, B, b, E]."""
        short = -tokens_BHNE.shape[2] % self.block
        tokens_BHNE = functional.pad(tokens_BHNE, (0, 0, 0, short)) if short else tokens_BHNE
        return tokens_BHNE.unflatten(2, (-1, self.block)).permute(1, 2, 0, 3, 4)


def looked_at(n: int, heads: int, edges: int, random: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which of n blocks each block that is not global looks at, int64 [H, w, g + 3 + r], and which of these count.

    Blocks of a window that stick out of the sequence, or that are global too, count not (they would count twice).
    Global are the first (edges >= 1) and the last (edges = 2).
    """
    own_W = torch.arange(int(edges > 0), n - int(edges > 1), device=device)
    ends_Wg = torch.tensor([0, n - 1][:edges], dtype=torch.int64, device=device).expand(len(own_W), -1)
    window_W3 = own_W[:, None] + torch.arange(-1, 2, device=device)
    inside_W3 = (window_W3 >= int(edges > 0)) & (window_W3 < n - int(edges > 1))
    random_HWr = random_blocks(n, heads, edges, random, seed, device)
    fixed = torch.cat([ends_Wg, window_W3.clamp(0, n - 1)], dim=1)
    counts = torch.cat([torch.ones_like(ends_Wg, dtype=torch.bool), inside_W3], dim=1)
    block_HWm = torch.cat([fixed.expand(heads, -1, -1), random_HWr], dim=2)
    counts_HWm = torch.cat([counts.expand(heads, -1, -1), torch.ones_like(random_HWr, dtype=torch.bool)], dim=2)
    return block_HWm, counts_HWm


def random_blocks(n: int, heads: int, edges: int, random: int, seed: int, device: torch.device) -> Tensor:
    """r different blocks for each head and each block that is not global, int64 [H, w, r].

    None is global, the block itself or beside it; all sets of r others are equally likely. A hash of seed, head, block
    and draw, and no generator: the same on every device and in every process, and torch.compile and torch.export can
    follow. n - 3 - g must be at least r.
    """
    first, last = int(edges > 0), int(edges > 1)
    own_W = torch.arange(n - first - last, device=device)
    start_W = (own_W - 1).clamp(min=0)
    around_W = (own_W + 2).clamp(max=n - first - last) - start_W
    key = _scrambled(torch.full((1,), seed % _PRIME, dtype=torch.int64, device=device))
    key_HW = _scrambled(_scrambled(key + torch.arange(heads, device=device))[:, None] + own_W)
    ranks: list[Tensor] = []
    for draw in range(random):  # R. Floyd's way to choose r of k without a second look at the k
        top_W = n - first - last - around_W - random + draw
        rank_HW = _scrambled(key_HW + draw) % (top_W + 1)
        if ranks:
            taken_HW = torch.stack([earlier_HW == rank_HW for earlier_HW in ranks]).any(dim=0)
            rank_HW = torch.where(taken_HW, top_W, rank_HW)
        ranks.append(rank_HW)
    if not ranks:
        return key_HW.new_empty(*key_HW.shape, 0)
    rank_HWr = torch.stack(ranks, dim=-1)
    return first + rank_HWr + torch.where(rank_HWr >= start_W[:, None], around_W[:, None], 0)


def _scrambled(value: Tensor) -> Tensor:
    """A bijection of 0 … 2**31 - 2 that looks like chance: fifth powers modulo a prime, and shifts between them."""
    for shift in (0x2545F491, 0x1B873593, 0x5BD1E995):
        value = (value + shift) % _PRIME
        square = value * value % _PRIME
        value = square * square % _PRIME * value % _PRIME
    return value
