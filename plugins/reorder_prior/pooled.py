"""Pairs of codes counted over a whole data set, and what they say in bits.

**Short strings.** Entropies of one image, in bits, would be plug-in estimates from N codes, and far too low where a
symbol hardly ever comes twice: by about (m - 1) / (2 n ln 2) for m different symbols among n (Miller 1955), and never
above log2 n. An image of 64 patches has 63 pairs, most of them different, so that its own conditional entropy is near
log2(63) less its unigram entropy whatever the order: 0.8 bits for random codes out of 64, where the truth is 6. Pairs
of a data set are many enough to be right in bits: the bias is little once n = B (N - d) is many times that of
different pairs.

B images, N slots, K codes, P pairs.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reorder_core import UsageError

Codes = NDArray[np.integer[Any]]

DENSE = 1024
"""up to so many codes, K² counters are held; above, only the pairs that came up"""


class PairCounts:
    """How often each pair (c_i, c_{i+d}) came up, over as many images as were added.

    codes: K. distance: d, at least 1. Memory is K² counters, or above `DENSE` codes what the pairs that came up take;
    it does not grow with the images. Raises `UsageError` for codes outside 0 … K-1.

    is_dense: whether there is a counter for every pair. count_P: the counters, int64: of pair c K + c' at that place
    where it is dense, so that counts of several processes add up; else of the pairs that came up, ascending.
    """

    def __init__(self, codes: int, distance: int = 1) -> None:
        if distance < 1:
            raise UsageError(f"pairs of codes must lie at least 1 slot apart, not {distance}")
        self.codes, self.distance = codes, distance
        self.is_dense = codes <= DENSE
        self.count_P = np.zeros(codes * codes if self.is_dense else 0, dtype=np.int64)
        self._key_P = np.zeros(0, dtype=np.int64)  # c K + c' of each counter, where it is not its place

    def add(self, codes_BN: Codes) -> Self:
        """Count the pairs of these images [B, N] too, in the order of their sequences."""
        key_BP = self._keys(codes_BN)
        if self.is_dense:
            self.count_P += np.bincount(key_BP.ravel(), minlength=len(self.count_P))
        else:
            self._put_in(*np.unique(key_BP, return_counts=True))
        return self

    def merge(self, other: PairCounts) -> Self:
        """Count what `other` counted too: another process's share of the images, say."""
        if (other.codes, other.distance) != (self.codes, self.distance):
            raise UsageError("pairs were counted with other codes or at another distance: count both alike")
        if self.is_dense:
            self.count_P += other.count_P
        else:
            self._put_in(other._key_P, other.count_P)
        return self

    @property
    def pairs(self) -> int:
        """How many pairs were counted."""
        return int(self.count_P.sum())

    def conditional_entropy(self) -> float:
        """H(c_{i+d} | c_i) of all pairs, bits."""
        first_K, _ = self._margins()
        return _entropy(self.count_P) - _entropy(first_K)

    def mutual_information(self) -> float:
        """I(c_i; c_{i+d}) of all pairs, bits."""
        first_K, second_K = self._margins()
        return _entropy(first_K) + _entropy(second_K) - _entropy(self.count_P)

    def _put_in(self, key_P: NDArray[np.int64], count_P: NDArray[np.int64]) -> None:
        keys = np.concatenate([self._key_P, key_P])
        self._key_P, place = np.unique(keys, return_inverse=True)
        counts = np.concatenate([self.count_P, count_P])
        self.count_P = np.bincount(place, weights=counts, minlength=len(self._key_P)).astype(np.int64)

    def _keys(self, codes_BN: Codes) -> NDArray[np.int64]:
        """c_i K + c_{i+d}, [B, N - d]."""
        if codes_BN.size and (int(codes_BN.min()) < 0 or int(codes_BN.max()) >= self.codes):
            raise UsageError(
                f"there are codes outside 0 to {self.codes - 1}: give the size of the tokenizer's codebook"
            )
        wide_BN = codes_BN.astype(np.int64)
        return wide_BN[:, : -self.distance] * self.codes + wide_BN[:, self.distance :]

    def _margins(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """How often each code came first and second, [K] each."""
        if self.is_dense:
            count_KK = self.count_P.reshape(self.codes, self.codes)
            return count_KK.sum(axis=1), count_KK.sum(axis=0)
        first_P, second_P = np.divmod(self._key_P, self.codes)
        return (
            np.bincount(first_P, weights=self.count_P, minlength=self.codes),
            np.bincount(second_P, weights=self.count_P, minlength=self.codes),
        )


def _entropy(count: NDArray[Any]) -> float:
    """Plug-in entropy of counts, bits."""
    share = count[count > 0] / max(float(count.sum()), 1.0)
    return float(-(share * np.log2(share)).sum())
