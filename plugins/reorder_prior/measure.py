"""The measurement: images -> codes -> each order -> packed -> compressed, and the statistics beside it.

B images, N patches, G groups of images compressed together, O orders, A lengths of n-gram.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid, RunError
from reorder_core.pixels import AT_ONCE, Loaded, Pixels, chunks
from reorder_prior.candidates import Candidate
from reorder_prior.columns import SUMMED, intensities, statistic_sums
from reorder_prior.packing import pack_rows
from reorder_prior.pooled import PairCounts
from reorder_prior.tally import Tally

_BLOCKS_AHEAD = 2  # blocks whose orders may wait for a thread while the next images are read

_COUNTED_AT_ONCE = 1024  # images whose pairs of neighbours are counted together


@dataclass(frozen=True)
class Measure:
    """What is done to every image.

    ngrams: lengths of n-grams, the first of which ranks. together: how many images are compressed as one stream.
    distances: how many slots apart the mutual information of codes is measured, ascending, 1 among them.
    """

    candidates: Sequence[Candidate]
    grid: Grid
    patch: int
    tokenizer: Any
    compressor: Any
    ngrams: tuple[int, ...] = (1,)
    together: int = 1
    distances: tuple[int, ...] = (1,)

    def empty(self, seed: int) -> Tally:
        """A tally that nothing was added to yet."""
        sizes = len(self.candidates), len(self.ngrams), len(SUMMED), self.tokenizer.codes
        return Tally(*sizes, seed, distances=self.distances)


@dataclass(frozen=True)
class Share:
    """Which blocks are this process's: every `processes`-th, from `process` on."""

    process: int = 0
    processes: int = 1


WHOLE = Share()


def fit_where_needed(
    tokenizer: Any, images: Callable[[], Any], report: Callable[[int, int], None] | None = None
) -> None:
    """Fit a tokenizer that was not, by itself or by a file of weights, fitted before."""
    if not tokenizer.fitted:
        tokenizer.fit(images(), report)


def run_measure(
    measure: Measure,
    images: Pixels,
    numbers: Sequence[int],
    seed: int,
    workers: int,
    tick: Callable[[int], None] | None = None,
    share: Share = WHOLE,
) -> Tally:
    """Measure the images with these numbers (those of this share), a few blocks of them at a time.

    The calling thread reads and tokenises, `workers` threads order, pack, compress and count. tick: told how many
    images are done since it was last called. Raises `RunError` for codes that do not fit the grid.
    """
    say = tick or (lambda done: None)
    tally = measure.empty(seed)
    size = measure.together * max(1, AT_ONCE // measure.together)
    blocks = enumerate(chunks(numbers, size))
    mine = ((block, part) for block, part in blocks if block % share.processes == share.process)
    pool = ThreadPoolExecutor(workers if measure.compressor.releases_gil else 1, "prior")
    pending: deque[_Block] = deque()
    pairs = _Pairs(measure, tally, pool)
    try:
        for block, part in mine:
            pending.append(_begin(measure, images, block, part, pool))
            while len(pending) > _BLOCKS_AHEAD:
                say(_finish(pending.popleft(), tally, pairs))
        while pending:
            say(_finish(pending.popleft(), tally, pairs))
        pairs.count()
    finally:
        pool.shutdown(cancel_futures=True)
    return tally


@dataclass(frozen=True)
class _Block:
    """A block under way: its sizes by order, and its statistics by batch and order."""

    number: int
    asked: int
    skipped: int
    codes_BN: NDArray[np.int64]
    images_G: NDArray[np.int64]
    sizes_O: list[Future[tuple[NDArray[np.int64], NDArray[np.int64]]]]
    statistics: list[list[Future[NDArray[np.float64]]]]


def _begin(measure: Measure, images: Pixels, block: int, numbers: Sequence[int], pool: ThreadPoolExecutor) -> _Block:
    """Read and tokenise a block, and hand its orders to the threads."""
    kept: list[NDArray[np.int64]] = []
    statistics: list[list[Future[NDArray[np.float64]]]] = []
    skipped = 0
    for part in chunks(numbers, AT_ONCE):
        loaded = images.load(part, pool.map)
        skipped += len(loaded.skipped)
        if not len(loaded):
            continue
        codes_BN = codes_of(measure, loaded)
        intensity_BN = intensities(loaded.images_BCHW, measure.grid)
        kept.append(codes_BN)
        statistics.append([pool.submit(statistic_sums, intensity_BN, each.order_N) for each in measure.candidates])
    codes_BN = np.concatenate(kept) if kept else np.zeros((0, measure.grid.size), np.int64)
    groups = [len(group) for group in chunks(range(len(codes_BN)), measure.together)]
    sizes_O = [pool.submit(_sizes, measure, codes_BN, each.order_N) for each in measure.candidates] if groups else []
    return _Block(block, len(numbers), skipped, codes_BN, np.array(groups, np.int64), sizes_O, statistics)


def _finish(block: _Block, tally: Tally, pairs: _Pairs) -> int:
    """Wait for a block and add it; returns how many images it asked for."""
    tally.skipped += block.skipped
    if block.sizes_O:
        found = [each.result() for each in block.sizes_O]
        statistic_OS = np.sum([[each.result() for each in batch] for batch in block.statistics], axis=0)
        tally.add(block.number, block.images_G, found[0][0], np.stack([size for _, size in found]), statistic_OS)
        pairs.keep(block.codes_BN)
    return block.asked


class _Pairs:
    """Codes that wait to be counted: counting many images at once spares a pass over K² counters for each few."""

    def __init__(self, measure: Measure, tally: Tally, pool: ThreadPoolExecutor) -> None:
        self.measure, self.tally, self.pool = measure, tally, pool
        self.kept: list[NDArray[np.int64]] = []

    def keep(self, codes_BN: NDArray[np.int64]) -> None:
        self.kept.append(codes_BN)
        if sum(map(len, self.kept)) >= _COUNTED_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Count what was kept, the orders side by side."""
        if not self.kept:
            return
        codes_BN = np.concatenate(self.kept)
        self.kept.clear()
        self.tally.code_K += np.bincount(codes_BN.ravel(), minlength=self.tally.codes)
        counted = [
            self.pool.submit(_count, pairs_E, codes_BN, each.order_N)
            for pairs_E, each in zip(self.tally.pairs_OE, self.measure.candidates, strict=True)
        ]
        for each in counted:
            each.result()


def _count(pairs_E: Sequence[PairCounts], codes_BN: NDArray[np.int64], order_N: NDArray[np.int64]) -> None:
    """The pairs of codes in one order, at each distance."""
    ordered_BN = codes_BN[:, order_N]
    for pairs in pairs_E:
        pairs.add(ordered_BN)


def codes_of(measure: Measure, loaded: Loaded) -> NDArray[np.int64]:
    """The codes of images, int64 [B, N], checked against the grid and the number of codes."""
    numbered = {"numbers": loaded.number_B} if getattr(measure.tokenizer, "needs_numbers", False) else {}
    codes_BN: NDArray[np.int64] = np.asarray(measure.tokenizer.tokens(loaded.images_BCHW, **numbered))
    wanted = (len(loaded), measure.grid.size)
    if codes_BN.shape != wanted:
        raise RunError(
            f"the tokenizer gives codes of shape {codes_BN.shape} where {wanted} (images, patches) are needed: "
            f"choose one made for a grid of {measure.grid} and patches of {measure.patch} pixels"
        )
    if codes_BN.min() < 0 or codes_BN.max() >= measure.tokenizer.codes:
        raise RunError(
            f"the tokenizer gives codes from {codes_BN.min()} to {codes_BN.max()}, and says that it has "
            f"{measure.tokenizer.codes}, from 0 on: choose another"
        )
    return codes_BN


def _sizes(
    measure: Measure, codes_BN: NDArray[np.int64], order_N: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(bytes before, bytes after) of each group in one order, int64 [G, A] both."""
    raw, packed = [], []
    for ngram in measure.ngrams:
        rows_BX = pack_rows(codes_BN[:, order_N], measure.tokenizer.codes, ngram)
        payloads = [group.tobytes() for group in chunks(rows_BX, measure.together)]
        raw.append([len(payload) for payload in payloads])
        packed.append([measure.compressor.size(payload) for payload in payloads])
    return np.array(raw, np.int64).T, np.array(packed, np.int64).T
