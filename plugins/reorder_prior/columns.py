"""The statistics that stand beside the compressed size: their names, what they mean, and how they are called.

B images, C channels, H W pixels, N patches, S statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid
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


COLUMNS = (
    Column("unigram_entropy", "H", ".2f", "entropy, bits", "entropy of a code in bits, the same in every order", False),
    Column("bigram_entropy", "H|1", ".2f", "entropy given the\none before, bits", "given the one before"),
    Column("mutual_information", "I", ".2f", "mutual information\nof neighbours, bits", "bits that neighbours share"),
    Column("total_variation", "TV", ".3f", "variation along\nthe sequence", "mean change of intensity (0 to 1) a slot"),
    Column("autocorrelation_length", "ACL", ".2f", "autocorrelation\nlength, slots", "slots until it falls below 1/e"),
    Column("neighbour_distance", "dist", ".2f", "distance of\nneighbours, patches", "on the grid, of neighbours"),
    Column("unit_steps", "unit", ".2f", "share of\nunit steps", "share of steps to a side neighbour"),
)
NAMES = tuple(column.name for column in COLUMNS)
SUMMED = ("total_variation", "autocorrelation_length")
"""what is averaged over images, in the order of `statistic_sums`"""


def intensities(images_BCHW: NDArray[np.float32], patch: int) -> NDArray[np.float64]:
    """The mean of each patch over pixels and channels, patches row by row, [B, N]."""
    images, channels, height, width = images_BCHW.shape
    split = images_BCHW.reshape(images, channels, height // patch, patch, width // patch, patch)
    return split.mean(axis=(1, 3, 5), dtype=np.float64).reshape(images, -1)


def statistic_sums(intensity_BN: NDArray[np.float64], order_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """The statistics of one order that images have each for itself, summed over these images, float64 [S]."""
    ordered_BN = intensity_BN[:, order_N]
    found = (statistics.total_variation(ordered_BN), statistics.autocorrelation_length(ordered_BN))
    return np.array([each_B.sum() for each_B in found])


def statistics_of(
    order_N: NDArray[np.int64], grid: Grid, pairs: PairCounts, entropy: float, mean_S: NDArray[np.float64]
) -> dict[str, float]:
    """Every statistic of one order, by name, in the order of `COLUMNS`.

    pairs: of neighbours in this order, over all images; one image has too few of them to say anything in bits.
    entropy: of all codes, bits. mean_S: the means over images, as `SUMMED` names them.
    """
    found = {
        "unigram_entropy": entropy,
        "bigram_entropy": pairs.conditional_entropy(),
        "mutual_information": pairs.mutual_information(),
        "neighbour_distance": statistics.neighbour_distance(order_N, grid)[0],
        "unit_steps": statistics.unit_steps(order_N, grid)[0],
        **dict(zip(SUMMED, mean_S, strict=True)),
    }
    return {name: float(found[name]) for name in NAMES}
