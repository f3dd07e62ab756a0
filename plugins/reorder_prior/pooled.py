"""Statistics of pairs of codes pooled over a data set: right in bits, where one image has too few pairs to tell.

Count the pairs of all images first, `add` by `add`; then ask for the bits of the
data set, or for each image's share of them.

B images, N slots, K codes, P pairs.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reorder_core import UsageError

Codes = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

DENSE = 1024
"""up to so many codes, K² counters are held; above, only the pairs that came up"""


def pooled_bigram_entropy(codes_BN: Codes, codes: int) -> Floats:
    """-log2 p(c_{i+1} | c_i), the mean over each image's pairs, p counted over all images given: bits [B].

    Its mean over these images *is* the pooled conditional entropy H(c_{i+1} | c_i). Too low by about
    (pairs - codes that came up) / (2 n ln 2) bits, n = B (N - 1): little once n is many times the pairs (Miller 1955).
    """
    return PairCounts(codes).add(codes_BN).surprise(codes_BN)


def pooled_mutual_information(codes_BN: Codes, codes: int, distance: int = 1) -> Floats:
    """log2 p(c_i, c_{i+d}) / (p(c_i) p(c_{i+d})), the mean over each image's pairs, p counted over all: bits [B].

    Its mean over these images is the pooled mutual information at distance d. An image alone may be below 0.
    """
    return PairCounts(codes, distance).add(codes_BN).information(codes_BN)


class PairCounts:
    """How often each pair (c_i, c_{i+d}) came up, over as many images as were added.

    codes: K. distance: d, at least 1. Memory is K² counters, or above `DENSE` codes what the pairs that came up take;
    it does not grow with the images. Raises `UsageError` for codes outside 0 … K-1.
    """

    def __init__(self, codes: int, distance: int = 1) -> None:
        if distance < 1:
            raise UsageError(f"pairs of codes must lie at least 1 slot apart, not {distance}")
        self.codes, self.distance = codes, distance
        self._dense = codes <= DENSE
        self._key_P = np.arange(codes * codes if self._dense else 0, dtype=np.int64)
        self._count_P = np.zeros(len(self._key_P), dtype=np.int64)

    def add(self, codes_BN: Codes) -> Self:
        """Count the pairs of these images [B, N] too, in the order of their sequences."""
        key_BP = self._keys(codes_BN)
        if self._dense:
            self._count_P += np.bincount(key_BP.ravel(), minlength=len(self._count_P))
        else:
            self._put_in(*np.unique(key_BP, return_counts=True))
        return self

    def merge(self, other: PairCounts) -> Self:
        """Count what `other` counted too: another process's share of the images, say."""
        if (other.codes, other.distance) != (self.codes, self.distance):
            raise UsageError("pairs were counted with other codes or at another distance: count both alike")
        if self._dense:
            self._count_P += other._count_P
        else:
            self._put_in(other._key_P, other._count_P)
        return self

    @property
    def pairs(self) -> int:
        """How many pairs were counted."""
        return int(self._count_P.sum())

    def conditional_entropy(self) -> float:
        """H(c_{i+d} | c_i) of all pairs, bits."""
        first_K, _ = self._margins()
        return _entropy(self._count_P) - _entropy(first_K)

    def mutual_information(self) -> float:
        """I(c_i; c_{i+d}) of all pairs, bits."""
        first_K, second_K = self._margins()
        return _entropy(first_K) + _entropy(second_K) - _entropy(self._count_P)

    def surprise(self, codes_BN: Codes) -> Floats:
        """-log2 p(c_{i+d} | c_i), mean over each image's pairs, bits [B]; infinite for a pair that never came up."""
        joint_BP, first_BP, _ = self._counts_of(codes_BN)
        return _row_means(np.log2(first_BP) - _log2(joint_BP))

    def information(self, codes_BN: Codes) -> Floats:
        """log2 p(c_i, c_{i+d}) / (p(c_i) p(c_{i+d})), the mean over each image's pairs, bits [B]."""
        joint_BP, first_BP, second_BP = self._counts_of(codes_BN)
        return _row_means(_log2(joint_BP) + np.log2(max(self.pairs, 1)) - np.log2(first_BP) - np.log2(second_BP))

    def _put_in(self, key_P: NDArray[np.int64], count_P: NDArray[np.int64]) -> None:
        keys = np.concatenate([self._key_P, key_P])
        self._key_P, place = np.unique(keys, return_inverse=True)
        counts = np.concatenate([self._count_P, count_P])
        self._count_P = np.bincount(place, weights=counts, minlength=len(self._key_P)).astype(np.int64)

    def _keys(self, codes_BN: Codes) -> NDArray[np.int64]:
        """c_i K + c_{i+d}, [B, N - d]."""
        if codes_BN.size and (int(codes_BN.min()) < 0 or int(codes_BN.max()) >= self.codes):
            raise UsageError(
                f"there are codes outside 0 to {self.codes - 1}: give the size of the tokenizer's codebook"
            )
        wide_BN = codes_BN.astype(np.int64)
        return wide_BN[:, : -self.distance] * self.codes + wide_BN[:, self.distance :]

    def _margins(self) -> tuple[Floats, Floats]:
        """How often each code came first and second, [K] each."""
        first_P, second_P = np.divmod(self._key_P, self.codes)
        return (
            np.bincount(first_P, weights=self._count_P, minlength=self.codes),
            np.bincount(second_P, weights=self._count_P, minlength=self.codes),
        )

    def _counts_of(self, codes_BN: Codes) -> tuple[Floats, Floats, Floats]:
        """For each pair of these images: how often it, its first and its second code came up, [B, N - d] each."""
        key_BP = self._keys(codes_BN)
        if self._dense:
            joint_BP = self._count_P[key_BP]
        else:
            place_BP = np.searchsorted(self._key_P[:-1], key_BP)  # the last one where a key is beyond all
            joint_BP = np.where(self._key_P[place_BP] == key_BP, self._count_P[place_BP], 0)
        first_K, second_K = self._margins()
        first_BP, second_BP = np.divmod(key_BP, self.codes)
        return joint_BP.astype(np.float64), np.maximum(first_K[first_BP], 1), np.maximum(second_K[second_BP], 1)


def _log2(count: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log2(count)


def _row_means(bits_BP: Floats) -> Floats:
    return bits_BP.mean(1) if bits_BP.shape[1] else np.zeros(len(bits_BP))


def _entropy(count: NDArray[Any]) -> float:
    """Plug-in entropy of counts, bits."""
    share = count[count > 0] / max(float(count.sum()), 1.0)
    return float(-(share * np.log2(share)).sum())
