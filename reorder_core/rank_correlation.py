"""How two lists of numbers go together, many pairs of lists at once: Pearson's r, and Spearman's rank correlation.

Every function goes along the last axis, M, and broadcasts over the others, so that [R, 1, M] against [O, M] answers
for all pairs, [R, O]. Where a side is constant there is no correlation, and the answer is NaN. (SciPy's `pearsonr`
warns there and makes p-values, and its `spearmanr` takes no such axes.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

_NOTHING = 1e-12  # a product of lengths below it belongs to a side that is constant


def spearman(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Spearman's rho along the last axis, mid-ranks for ties, -1 … 1."""
    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's r along the last axis, -1 … 1."""
    return cosine(x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True))


def cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ xy / √(Σ x² Σ y²) along the last axis, -1 … 1: of centred values Pearson's r, of signs Kendall's tau-b."""
    above = np.einsum("...m,...m->...", x, y)
    below = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    found: NDArray[np.float64] = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > _NOTHING)
    return np.clip(found, -1, 1)
