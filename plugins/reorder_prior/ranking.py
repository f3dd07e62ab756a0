"""The ranking: every ordering with its size, its interval and its statistics, most compressible first.

N patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core.bootstrap import Interval
from reorder_prior.columns import statistics_of
from reorder_prior.measure import Measure
from reorder_prior.tally import Tally


@dataclass(frozen=True)
class Size:
    """bytes: compressed, of an image. raw: before. reduction: 1 - bytes / raw, with its interval over images."""

    bytes: float
    raw: float
    reduction: Interval


@dataclass(frozen=True)
class Ranked:
    """One ordering.

    sizes: by length of n-gram, the ranking one first. behind_winner, behind_next: how much more the first, and the one
    above, reduce: a difference of reductions over the same images; None for the first. by_chance: a random order that
    stands there to be compared with. over_chance: how much more it reduces than the best of these; None for themselves.
    """

    ordering: str
    order_N: NDArray[np.int64]
    sizes: Mapping[int, Size]
    statistics: Mapping[str, float]
    behind_winner: Interval | None
    behind_next: Interval | None
    by_chance: bool = False
    over_chance: Interval | None = None

    @property
    def size(self) -> Size:
        """By the n-gram that ranks."""
        return next(iter(self.sizes.values()))

    @property
    def is_told_from_next(self) -> bool:
        """Whether it is surely behind the one above it (in 95 of 100 samples of images)."""
        return self.behind_next is None or self.behind_next.excludes_zero

    def as_json(self) -> dict[str, Any]:
        """Its row of the document: what can be compared between orderings, nothing else."""
        return {"ordering": self.ordering, **size_json(self.size), "statistics": dict(self.statistics)}


def size_json(size: Size) -> dict[str, Any]:
    """bytes, reduction, interval."""
    low_high = [size.reduction.low, size.reduction.high]
    return {"bytes": size.bytes, "reduction": size.reduction.mean, "interval": low_high}


def _difference(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else {"reduction": found.mean, "interval": [found.low, found.high]}


def rank(measure: Measure, tally: Tally) -> list[Ranked]:
    """All orderings, most compressible first; equal ones by their name."""
    labels = [each.label for each in measure.candidates]
    place = sorted(range(len(labels)), key=lambda order: (int(tally.bytes_OA[order, 0]), labels[order]))
    chance = next((order for order in place if measure.candidates[order].by_chance), None)
    return [
        _ranked(measure, tally, order, place[0], place[max(0, slot - 1)], chance) for slot, order in enumerate(place)
    ]


def _ranked(measure: Measure, tally: Tally, order: int, winner: int, above: int, chance: int | None) -> Ranked:
    sizes = {
        ngram: Size(
            float(tally.bytes_OA[order, number] / tally.images),
            float(tally.raw_A[number] / tally.images),
            tally.reduction(order, number),
        )
        for number, ngram in enumerate(measure.ngrams)
    }
    candidate = measure.candidates[order]
    mean_S = tally.statistic_OS[order] / tally.images
    first = order == winner
    return Ranked(
        candidate.label,
        candidate.order_N,
        sizes,
        statistics_of(candidate.order_N, measure.grid, tally.pairs_OE[order], tally.entropy, mean_S),
        None if first else tally.reduction_between(order, winner),
        None if first else tally.reduction_between(order, above),
        candidate.by_chance,
        None if candidate.by_chance or chance is None else tally.reduction_between(chance, order),
    )


@dataclass(frozen=True)
class Finding:
    """A ranking and what it was made of. notes: what was left out, and why. folder: of images that are files."""

    data: str
    measure: Measure
    tokenizer: Mapping[str, Any]
    compressor: Mapping[str, Any]
    ranking: Sequence[Ranked]
    tally: Tally
    notes: Sequence[str] = ()
    folder: str | None = None

    @property
    def is_stored(self) -> bool:
        """Whether no order makes an image shorter than its codes are."""
        return all(row.size.bytes >= row.size.raw for row in self.ranking)

    def as_json(self, orders: bool = False) -> dict[str, Any]:
        """The document of `--json`; with `orders` also the permutations, as `--write` and `--out` save them."""
        grid, tally = self.measure.grid, self.tally
        document: dict[str, Any] = {
            "data": self.data,
            "folder": self.folder,
            "images": tally.images,
            "skipped": tally.skipped,
            "grid": [grid.rows, grid.columns],
            "patch": self.measure.patch,
            "tokenizer": dict(self.tokenizer),
            "compressor": dict(self.compressor),
            "ngram": list(self.measure.ngrams),
            "together": self.measure.together,
            "raw_bytes": self.ranking[0].size.raw,
            "ranking": [each.as_json() for each in self.ranking],
            "behind_winner": {each.ordering: _difference(each.behind_winner) for each in self.ranking},
            "behind_next": {each.ordering: _difference(each.behind_next) for each in self.ranking},
            "chance": [each.ordering for each in self.ranking if each.by_chance],
            "over_chance": {each.ordering: _difference(each.over_chance) for each in self.ranking},
            "left_out": list(self.notes),
        }
        if len(self.measure.ngrams) > 1:
            document["by_ngram"] = {
                str(ngram): {each.ordering: size_json(each.sizes[ngram]) for each in self.ranking}
                for ngram in self.measure.ngrams
            }
        if orders:
            document["orders"] = {each.ordering: each.order_N.tolist() for each in self.ranking}
        return document
