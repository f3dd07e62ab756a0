"""Where the salient patches stand: Spearman's rank correlation of slot and saliency, and how sure it is.

B images, R resamples, N patches, O orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reorder_core.permutation import invert
from reorder_core.rank_correlation import spearman


@dataclass(frozen=True)
class Placed:
    """correlation: of the slot in this order and the saliency of the mean map; above 0, what matters is read late.

    low, high: its 95 % bootstrap interval over images.
    """

    order: str
    correlation: float
    low: float
    high: float


def placed(
    map_BN: NDArray[np.float64], orders: Mapping[str, NDArray[np.int64]], resamples: int = 1000, seed: int = 0
) -> list[Placed]:
    """The correlation of each order with the mean of these maps, with its percentile interval over images.

    A resample of few images has a noisier map, and noise draws rank correlations towards 0: the interval leans there.
    """
    B = len(map_BN)
    drawn_RB = np.random.default_rng(seed).multinomial(B, np.full(B, 1 / B), size=resamples)
    slot_ON = np.stack([invert(order_N) for order_N in orders.values()])
    whole_O = rank_correlations(map_BN.mean(axis=0)[None], slot_ON)[0]
    found_RO = rank_correlations(drawn_RB @ map_BN / B, slot_ON)
    low_O, high_O = np.percentile(found_RO, [2.5, 97.5], axis=0)
    values = zip(orders, whole_O.tolist(), low_O.tolist(), high_O.tolist(), strict=True)
    return [Placed(name, whole, low, high) for name, whole, low, high in values]


def rank_correlations(salience_RN: NDArray[np.float64], slot_ON: NDArray[np.int64]) -> NDArray[np.float64]:
    """Spearman's ρ of every row of saliencies with every row of slots, ties at their mean rank, [R, O].

    Where one of the two is the same everywhere there is no association to speak of, and it is 0.
    """
    return np.nan_to_num(spearman(salience_RN[:, None], slot_ON[None]))


def chance(N: int) -> float:
    """95 % of random orders of N patches lie nearer to 0 than this (Spearman's ρ has variance 1 / (N - 1))."""
    return 1.0 if N < 2 else min(1.0, 1.96 / float(np.sqrt(N - 1)))
