"""Rank correlations over a few orders: how large, how sure, and how often chance does as well.

M pairs, R resamples, P permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from reorder_core.rank_correlation import cosine, pearson, spearman

_EXACT = 8  # pairs up to which all M! successions are tried: 40,320
_DRAWN = 20_000  # random successions otherwise
_SLACK = 1e-9  # correlations that differ by rounding count as equal


@dataclass(frozen=True)
class Estimate:
    """A correlation with the ends of its interval; NaN ends where resampling could not give one."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, Any]:
        return {key: None if np.isnan(value) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Correlation:
    """p: of Spearman's rho, two-sided, by permutation; exact: all successions were tried."""

    pairs: int
    spearman: Estimate
    kendall: Estimate
    p: float
    exact: bool


def correlate(x_M: Sequence[float], y_M: Sequence[float], resamples: int, rng: np.random.Generator) -> Correlation:
    """Spearman's rho and Kendall's tau-b of at least three pairs, neither side constant.

    Intervals: 95 % percentile bootstrap over the pairs (Efron & Tibshirani 1993, chapter 13); a pair is an order, which
    is drawn with all of its seeds. Resamples in which one side is constant have no correlation and are not counted.
    """
    x, y = np.asarray(x_M, dtype=np.float64), np.asarray(y_M, dtype=np.float64)
    picked_RM = rng.integers(0, len(x), size=(resamples, len(x)))
    x_RM, y_RM = x[picked_RM], y[picked_RM]
    p, exact = permutation_p(x, y, rng)
    return Correlation(
        len(x),
        _estimate(float(spearman(x, y)), spearman(x_RM, y_RM)),
        _estimate(float(kendall(x[None], y[None])[0]), kendall(x_RM, y_RM)),
        p,
        exact,
    )


def kendall(x_RM: NDArray[np.float64], y_RM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b of each row (ties taken out of the denominator), [R]; NaN where a side is constant."""
    first, second = np.triu_indices(x_RM.shape[1], k=1)
    sign_x, sign_y = (np.sign(value[:, first] - value[:, second]) for value in (x_RM, y_RM))
    return cosine(sign_x, sign_y)


def permutation_p(x_M: NDArray[np.float64], y_M: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, bool]:
    """How often |rho| is as large when orders and accuracies are paired by chance, and whether all pairings were tried.

    Exact up to 8 pairs; else 20,000 random ones, the observed one counted with them (Phipson & Smyth 2010).
    """
    M = len(x_M)
    x_M, y_M = rankdata(x_M), rankdata(y_M)
    observed = abs(float(pearson(x_M, y_M))) - _SLACK
    if M <= _EXACT:
        order_PM = np.array([*permutations(range(M))])
        return float(np.mean(np.abs(pearson(x_M, y_M[order_PM])) >= observed)), True
    order_PM = rng.permuted(np.tile(np.arange(M), (_DRAWN, 1)), axis=1)
    as_large = int(np.sum(np.abs(pearson(x_M, y_M[order_PM])) >= observed))
    return (as_large + 1) / (_DRAWN + 1), False


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values (1979): below alpha, with the chance of any false one at most alpha."""
    count, running = len(p_values), 0.0
    found = [0.0] * count
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (count - rank) * p_values[place]))
        found[int(place)] = running
    return found


def _estimate(value: float, value_R: NDArray[np.float64]) -> Estimate:
    known_R = value_R[np.isfinite(value_R)]
    if not known_R.size:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(known_R, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
