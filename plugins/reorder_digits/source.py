"""scikit-learn's handwritten digits, and the split of them that never changes.

n digits, P digits of a split, K = 10 classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reorder_digits.draws import Draws, key_of

CLASSES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, slots=True)
class Pool:
    """Digits of one split: ink_PHW float32 from 0 to 1, target_P int64, source_P: their numbers in load_digits."""

    ink_PHW: NDArray[np.float32]
    target_P: NDArray[np.int64]
    source_P: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target_P)


def shares(count_K: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` divided among classes in proportion to their counts: largest remainders, ties to the smaller class."""
    exact_K = count_K * (total / count_K.sum())
    share_K: NDArray[np.int64] = np.floor(exact_K).astype(np.int64)
    neediest = np.argsort(share_K - exact_K, kind="stable")
    share_K[neediest[: total - share_K.sum()]] += 1
    return share_K


def validation_mask(target_n: NDArray[np.int64], validation: int, seed: int) -> NDArray[np.bool_]:
    """True where a digit is kept for validation: bool [n], stratified, a pure function of its arguments."""
    rank_n = Draws(key_of(seed), np.arange(len(target_n))).bits(0, 1)[:, 0]
    mask_n = np.zeros(len(target_n), dtype=bool)
    for digit, share in enumerate(shares(np.bincount(target_n, minlength=len(CLASSES)), validation)):
        members = np.flatnonzero(target_n == digit)
        mask_n[members[np.argsort(rank_n[members], kind="stable")[:share]]] = True
    return mask_n


@lru_cache(maxsize=4)
def digit_pools(validation: int = 360, seed: int = 0) -> tuple[Pool, Pool]:
    """(train, validation), both in load_digits' order."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    ink_nHW = (bunch.images / 16.0).astype(np.float32)
    target_n = bunch.target.astype(np.int64)
    kept_n = validation_mask(target_n, validation, seed)

    def pool(mask_n: NDArray[np.bool_]) -> Pool:
        return Pool(ink_nHW[mask_n], target_n[mask_n], np.flatnonzero(mask_n))

    return pool(~kept_n), pool(kept_n)
