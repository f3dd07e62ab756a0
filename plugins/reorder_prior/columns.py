"""The statistics that stand beside the compressed size: their names, what they mean, and how they are called.

B images, N patches, S statistics, E distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid
from reorder_core.patches import cut
from reorder_prior import statistics
from reorder_prior.pooled import PairCounts


@dataclass(frozen=True)
class Column:
    """name: key in JSON. head, form: in the table. title, drawn: in the picture. meaning: for the table's legend."""

    name: str
    head: str
    form: str
    title: str
    meaning: str
    drawn: bool = True


_OF_CODES = (
    Column("unigram_entropy", "H", ".2f", "entropy, bits", "entropy of a code in bits, the same in every order", False),
    Column("bigram_entropy", "H|1", ".2f", "entropy given the\none before, bits", "given the one before"),
)
_OF_PLACES = (
    Column("total_variation", "TV", ".3f", "variation along\nthe sequence", "mean change of intensity (0 to 1) a slot"),
    Column("autocorrelation_length", "ACL", ".2f", "autocorrelation\nlength, slots", "slots until it falls below 1/e"),
    Column("neighbour_distance", "dist", ".2f", "distance of\nneighbours, patches", "on the grid, of neighbours"),
    Column("unit_steps", "unit", ".2f", "share of\nunit steps", "share of steps to a side neighbour"),
)
SUMMED = ("total_variation", "autocorrelation_length")
"""what is averaged over images, in the order of `statistic_sums`"""


def columns_of(distances: Sequence[int]) -> tuple[Column, ...]:
    """All columns, with one of mutual information for each distance."""
    return (*_OF_CODES, *map(_shared, distances), *_OF_PLACES)


def _shared(distance: int) -> Column:
    if distance == 1:
        title, meaning = "mutual information\nof neighbours, bits", "bits that neighbours share"
        return Column("mutual_information", "I", ".2f", title, meaning)
    title, meaning = (
        f"mutual information\n{distance} slots apart, bits",
        f"bits that codes {distance} slots apart share",
    )
    return Column(f"mutual_information_{distance}", f"I@{distance}", ".2f", title, meaning)


def intensities(images_BCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """The mean of each patch over pixels and channels, [B, N]."""
    mean_BN: NDArray[np.float64] = cut(images_BCHW, grid).mean(axis=2, dtype=np.float64)
    return mean_BN


def statistic_sums(intensity_BN: NDArray[np.float64], order_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """The statistics of one order that images have each for itself, summed over these images, float64 [S]."""
    ordered_BN = intensity_BN[:, order_N]
    found = (statistics.total_variation(ordered_BN), statistics.autocorrelation_length(ordered_BN))
    return np.array([each_B.sum() for each_B in found])


def statistics_of(
    order_N: NDArray[np.int64],
    grid: Grid,
    pairs_E: Sequence[PairCounts],
    entropy: float,
    mean_S: NDArray[np.float64],
) -> dict[str, float]:
    """Every statistic of one order, by name, in the order of `columns_of`.

    pairs_E: of codes in this order, over all images, the first of neighbours; one image has too few of them to say
    anything in bits. entropy: of all codes, bits. mean_S: the means over images, as `SUMMED` names them.
    """
    distances = [pairs.distance for pairs in pairs_E]
    found = {
        "unigram_entropy": entropy,
        "bigram_entropy": pairs_E[0].conditional_entropy(),
        **{_shared(pairs.distance).name: pairs.mutual_information() for pairs in pairs_E},
        "neighbour_distance": statistics.neighbour_distance(order_N, grid)[0],
        "unit_steps": statistics.unit_steps(order_N, grid)[0],
        **dict(zip(SUMMED, mean_S, strict=True)),
    }
    return {column.name: float(found[column.name]) for column in columns_of(distances)}
