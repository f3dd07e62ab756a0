"""The Sparse Transformer's two patterns: their index sets, and how they are folded.

B images, H heads, N patches, S special tokens, E width of a head, l stride, c summary slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reorder_sparse_transformer.folded_attention import Part, Special, folded_attention, merged_attention
from reorder_sparse_transformer.folds import Column, Fold, Local, Summary
from reorder_sparse_transformer.sequence_places import Places

Combine = Literal["merged", "heads", "first", "second"]


@dataclass(frozen=True, slots=True)
class Factorised:
    """Child et al. 2019, section 4.3. For slot i the first part of the pattern is A(1), the second A(2):

    strided: A(1) = {j : |i - j| <= l},      A(2) = {j : (i - j) mod l = 0}
    fixed:   A(1) = {j : j // l = i // l},   A(2) = {j : j mod l >= l - c}

    causal: of these, j <= i. A slot whose set is empty (the first ones, in A(2) of fixed) keeps its own value.
    combine: both parts in one softmax (merged), in half of the heads each (heads), or one of them alone (section 5.2).
    """

    pattern: Literal["strided", "fixed"]
    stride: int
    summary: int = 1
    causal: bool = False
    combine: Combine = "merged"

    @property
    def folds(self) -> tuple[Fold, Fold]:
        """How the sequence is cut for A(1) and for A(2)."""
        if self.pattern == "strided":
            return Local(self.stride, 1, 0 if self.causal else 1), Column(self.stride)
        return Local(self.stride), Summary(self.stride, self.summary)

    def sees_all(self, N: int) -> bool:
        """Whether each of N slots sees them all, or itself alone, so that their order makes no difference."""
        strided = self.pattern == "strided"
        first = self.stride >= (N - 1 if strided else N)
        second = self.stride == 1 if strided else self.summary == self.stride
        if self.causal or self.combine == "merged":
            return not self.causal and (first or second)
        first = first or (self.stride == 1 and not strided)
        second = second or (self.stride >= N and strided)
        return {"heads": first and second, "first": first, "second": second}[self.combine]

    def plan(self, places: Places, heads: int) -> tuple[Part, ...]:
        """The parts that `attend` wants for sequences like this."""
        parts = {"first": (False,), "second": (True,)}.get(self.combine, (False, True))
        heads = heads // 2 if self.combine == "heads" else heads
        return tuple(self._part(second, places, heads) for second in parts)

    def attend(
        self,
        q_BHNE: Tensor,
        k_BHNE: Tensor,
        v_BHNE: Tensor,
        special_kv: tuple[Tensor, Tensor] | None,
        plan: tuple[Part, ...],
    ) -> Tensor:
        """[B, H, N, E]. special_kv: keys and values of the special tokens, [B, H, S, E] each."""
        if self.combine != "heads":
            return _attend(q_BHNE, k_BHNE, v_BHNE, special_kv, plan)
        halves = [tensor.chunk(2, dim=1) for tensor in (q_BHNE, k_BHNE, v_BHNE, *(special_kv or ()))]
        out = [_attend(*half[:3], half[3:] or None, (part,)) for *half, part in zip(*halves, plan, strict=True)]
        return torch.cat(out, dim=1)

    def _part(self, second: bool, places: Places, heads: int) -> Part:
        fold, merged = self.folds[second], self.combine == "merged"
        with_special = bool(places.special_at) and not (merged and second)
        i, j = fold.queries(places.number_1N1), fold.keys(places.key_bN1).transpose(2, 3)
        restricted = self._allowed(second, i - 1, j - 1)
        if (
            restricted is None
            and not self.causal
            and not places.padded
            and places.number_1N1.shape[1] % self.stride == 0
        ):
            return Part(fold, None)
        mask = j > 0
        mask = mask & (j <= i) if self.causal else mask
        mask = mask if restricted is None else mask & restricted
        if with_special:
            seen = places.special_seen(i, self.causal)
            shape = (mask.shape[0], mask.shape[1], max(mask.shape[2], seen.shape[2]))
            mask = torch.cat([seen.expand(*shape, -1), mask.expand(*shape, -1)], dim=-1)
        alone = None
        if not (merged and second):
            empty = ~mask.any(dim=-1, keepdim=True)
            alone = _rows(empty[:, 0], heads) if isinstance(fold, Summary) else None
            mask = mask | empty
        return Part(fold, _rows(mask, heads), alone)

    def _allowed(self, second: bool, i: Tensor, j: Tensor) -> Tensor | None:
        """Which pairs of a fold belong to its set (merged: A(2) without A(1)), causality apart; None: all."""
        alone = self.combine != "merged"
        if self.pattern == "strided":
            near = (i - j).abs() <= self.stride
            return near if not second else None if alone else ~near
        return None if alone or not second else i // self.stride != j // self.stride


def _attend(
    q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, special_kv: tuple[Tensor, ...] | None, parts: tuple[Part, ...]
) -> Tensor:
    q, k, v = (tensor.flatten(0, 1) for tensor in (q_BHNE, k_BHNE, v_BHNE))
    special: Special | None = None
    if special_kv is not None:
        special = special_kv[0].flatten(0, 1), special_kv[1].flatten(0, 1)
    y_RNE = (
        folded_attention(q, k, v, parts[0], special) if len(parts) == 1 else merged_attention(q, k, v, parts, special)
    )
    return y_RNE.view(q_BHNE.shape)


def _rows(tensor: Tensor, heads: int) -> Tensor:
    """[b, ...] to [1, ...], or to [B × H, ...] where images differ."""
    if tensor.shape[0] == 1:
        return tensor
    return tensor.unsqueeze(1).expand(-1, heads, *tensor.shape[1:]).flatten(0, 1)
