"""What is kept while images stream by: sums, and the same sums over bootstrap resamples.

G groups (images compressed together; one image each by default), O orders, A lengths of n-gram, S statistics,
E distances, R resamples, K codes.

Memory does not grow with the images: instead of drawing images afterwards, each group enters every resample with a
weight drawn from a Poisson law of mean 1 when it comes by, the same weight for all orders, so that orders are compared
on the same resamples (Hanley & MacGibbon 2006; Chamandy et al. 2012, "Estimating uncertainty for massive data
streams"). The weights of a block of groups are a function of the seed and the block's number alone: however blocks
are shared out over processes, the sums are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reorder_core.bootstrap import Interval
from reorder_prior.pooled import PairCounts

RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass
class Tally:
    """images, groups: what was counted; skipped: what could not be read. codes: K.

    raw_A, bytes_OA: bytes before and after compression. statistic_OS: sums over images. weight_R, raw_RA, bytes_ROA:
    images and bytes in each resample. code_K: how often each code came up; pairs_OE: the same of pairs of codes, in
    each order, at each distance. All are sums.
    """

    orders: int
    ngrams: int
    statistics: int
    codes: int
    seed: int = 0
    images: int = 0
    groups: int = 0
    skipped: int = 0
    distances: tuple[int, ...] = (1,)
    raw_A: NDArray[np.int64] = field(init=False)
    bytes_OA: NDArray[np.int64] = field(init=False)
    statistic_OS: NDArray[np.float64] = field(init=False)
    weight_R: NDArray[np.int64] = field(init=False)
    raw_RA: NDArray[np.int64] = field(init=False)
    bytes_ROA: NDArray[np.int64] = field(init=False)
    code_K: NDArray[np.int64] = field(init=False)
    pairs_OE: list[list[PairCounts]] = field(init=False)

    def __post_init__(self) -> None:
        self.raw_A = np.zeros(self.ngrams, np.int64)
        self.bytes_OA = np.zeros((self.orders, self.ngrams), np.int64)
        self.statistic_OS = np.zeros((self.orders, self.statistics))
        self.weight_R = np.zeros(RESAMPLES, np.int64)
        self.raw_RA = np.zeros((RESAMPLES, self.ngrams), np.int64)
        self.bytes_ROA = np.zeros((RESAMPLES, self.orders, self.ngrams), np.int64)
        self.code_K = np.zeros(self.codes, np.int64)
        self.pairs_OE = [[PairCounts(self.codes, each) for each in self.distances] for _ in range(self.orders)]

    def add(
        self,
        block: int,
        images_G: NDArray[np.int64],
        raw_GA: NDArray[np.int64],
        bytes_OGA: NDArray[np.int64],
        statistic_OS: NDArray[np.float64],
    ) -> None:
        """One block of groups: how many images each holds, its bytes, and the sums of its images' statistics."""
        self.images += int(images_G.sum())
        self.groups += len(images_G)
        self.raw_A += raw_GA.sum(axis=0)
        self.bytes_OA += bytes_OGA.sum(axis=1)
        self.statistic_OS += statistic_OS
        drawn_RG = np.random.default_rng([self.seed, block]).poisson(1.0, size=(RESAMPLES, len(images_G)))
        self.weight_R += drawn_RG @ images_G
        self.raw_RA += drawn_RG @ raw_GA
        for order, bytes_GA in enumerate(bytes_OGA):
            self.bytes_ROA[:, order] += drawn_RG @ bytes_GA

    @property
    def entropy(self) -> float:
        """Of all codes, bits."""
        share = self.code_K[self.code_K > 0] / max(1, int(self.code_K.sum()))
        return float(-(share * np.log2(share)).sum())

    def reduction(self, order: int, ngram: int = 0) -> Interval:
        """1 - bytes / raw bytes, with its interval over images."""
        point = 1 - self.bytes_OA[order, ngram] / self.raw_A[ngram]
        full_R = self.weight_R > 0
        return _interval(point, 1 - self.bytes_ROA[full_R, order, ngram] / self.raw_RA[full_R, ngram])

    def reduction_between(self, order: int, other: int, ngram: int = 0) -> Interval:
        """How much more `other` reduces than `order`, over the same resamples."""
        point = (self.bytes_OA[order, ngram] - self.bytes_OA[other, ngram]) / self.raw_A[ngram]
        full_R = self.weight_R > 0
        more_R = self.bytes_ROA[full_R, order, ngram] - self.bytes_ROA[full_R, other, ngram]
        return _interval(point, more_R / self.raw_RA[full_R, ngram])


def _interval(point: float, value_R: NDArray[np.float64]) -> Interval:
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(value_R, [tail, 100 - tail]) if value_R.size else (point, point)
    return Interval(float(point), float(low), float(high))


SUMS: Sequence[str] = (
    *("images", "groups", "skipped", "raw_A", "bytes_OA", "statistic_OS"),
    *("weight_R", "raw_RA", "bytes_ROA", "code_K"),
)
"""what adds up over the blocks of several processes, beside `pairs_OE`"""
