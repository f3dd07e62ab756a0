"""Folds: a sequence cut so that every query stands beside the keys that it may see.

R rows (images × heads), N slots, E width, l stride, n = N / l rounded up. A fold makes [R, folds, q, E] of queries and
[R, folds, m, E] of keys; slots that the sequence does not fill are zeros, for a mask to leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Local:
    """Blocks of `size` slots; keys are the block and that many whole blocks `before` and `after` it."""

    size: int
    before: int = 0
    after: int = 0

    def queries(self, tokens_RNE: Tensor) -> Tensor:
        """[R, n, l, E]."""
        return _blocks(tokens_RNE, self.size)

    def keys(self, tokens_RNE: Tensor) -> Tensor:
        """[R, n, (before + 1 + after) l, E], in the order of the sequence."""
        blocks = _blocks(tokens_RNE, self.size, self.before, self.after)
        count = blocks.shape[1] - self.before - self.after
        shifted = [blocks[:, shift : shift + count] for shift in range(self.before + 1 + self.after)]
        return torch.cat(shifted, dim=2) if len(shifted) > 1 else blocks

    def join(self, folds_RnqE: Tensor, N: int) -> Tensor:
        """[R, N, E]: queries back in the order of the sequence."""
        return folds_RnqE.flatten(1, 2)[:, :N]


@dataclass(frozen=True, slots=True)
class Column:
    """The sequence laid out in rows of `stride` slots and read column by column: every `stride`-th slot together."""

    stride: int

    def queries(self, tokens_RNE: Tensor) -> Tensor:
        """[R, l, n, E]."""
        return _blocks(tokens_RNE, self.stride).transpose(1, 2)

    def keys(self, tokens_RNE: Tensor) -> Tensor:
        """[R, l, n, E]."""
        return self.queries(tokens_RNE)

    def join(self, folds_RnqE: Tensor, N: int) -> Tensor:
        """[R, N, E]: queries back in the order of the sequence."""
        return folds_RnqE.transpose(1, 2).flatten(1, 2)[:, :N]


@dataclass(frozen=True, slots=True)
class Summary:
    """All slots look at the last `count` slots of every block of `size`."""

    size: int
    count: int

    def queries(self, tokens_RNE: Tensor) -> Tensor:
        """[R, 1, N, E]."""
        return tokens_RNE.unsqueeze(1)

    def keys(self, tokens_RNE: Tensor) -> Tensor:
        """[R, 1, n × count, E]."""
        return _blocks(tokens_RNE, self.size)[:, :, self.size - self.count :].flatten(1, 2).unsqueeze(1)

    def join(self, folds_RnqE: Tensor, N: int) -> Tensor:
        """[R, N, E]."""
        return folds_RnqE[:, 0]


Fold = Local | Column | Summary


def _blocks(tokens_RNE: Tensor, size: int, before: int = 0, after: int = 0) -> Tensor:
    """[R, before + n + after, size, E]: blocks, with as many of zeros in front and behind."""
    N = tokens_RNE.shape[1]
    n = -(-N // size)
    front, back = before * size, (n + after) * size - N
    if front or back:
        tokens_RNE = functional.pad(tokens_RNE, (0, 0, front, back))
    return tokens_RNE.unflatten(1, (before + n + after, size))
