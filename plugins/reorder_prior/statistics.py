"""What an order does to an image, without codes: variation, correlation, distances on the grid.

Values come in the order of the sequence, `values_BN[:, perm]`. Each statistic is one number an image, float64 [B], or
one an order, [G]. What is counted of codes is pooled over all images, in `pooled.py`: one image has too few pairs.

B images, G orders, N slots, D values of a patch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid
from reorder_core.permutation import steps

Orders = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


def total_variation(values: NDArray[np.floating[Any]]) -> Floats:
    """The mean of |x_{i+1} - x_i| along the sequence, [B], in units of the values; 0 for a single patch.

    values: [B, N], a number a patch (its mean intensity, say), or [B, N, D], a vector a patch (its pixels): then the
    Euclidean distance of neighbours.
    """
    vectors_BND = _as_vectors(values)
    if vectors_BND.shape[1] < 2:
        return np.zeros(len(vectors_BND))
    change_BND = np.diff(vectors_BND, axis=1)
    return np.sqrt(np.einsum("bnd,bnd->bn", change_BND, change_BND)).mean(1)


def autocorrelation(values: NDArray[np.floating[Any]]) -> Floats:
    """ρ(k) = Σ_i ⟨x_i - x̄, x_{i+k} - x̄⟩ / Σ_i |x_i - x̄|² for k = 0 … N-1, [B, N].

    values: [B, N] or [B, N, D]; x̄ is the image's own mean. Divided by the sum over all N slots, as is usual, so that it
    goes to 0 with the number of pairs. 1 at every k for a constant image. O(N log N), by Fourier transform.
    """
    vectors_BND = _as_vectors(values)
    count = vectors_BND.shape[1]
    spectrum_BFD = np.fft.rfft(vectors_BND - vectors_BND.mean(1, keepdims=True), n=2 * count, axis=1)
    power_BF = (spectrum_BFD.real**2 + spectrum_BFD.imag**2).sum(2)
    covariance_BN = np.fft.irfft(power_BF, n=2 * count, axis=1)[:, :count]
    constant_B = (vectors_BND == vectors_BND[:, :1]).all((1, 2))  # what is left of them is rounding
    covariance_BN[constant_B] = 1.0
    return covariance_BN / covariance_BN[:, :1]


def autocorrelation_length(values: NDArray[np.floating[Any]]) -> Floats:
    """Over how many slots the values stay alike: where ρ(k) first falls below 1/e, between two k by a line; slots [B].

    values: [B, N] or [B, N, D]. N - 1 where it never does, which only a constant image (or a pair) comes to.
    """
    rho_BN = autocorrelation(values)
    count = rho_BN.shape[1]
    below_BN = rho_BN < np.exp(-1)
    crossed_B = below_BN.any(1)
    after_B = np.where(crossed_B, below_BN.argmax(1), 1)
    if count < 2:
        return np.zeros(len(rho_BN))
    rows_B = np.arange(len(rho_BN))
    high_B, low_B = rho_BN[rows_B, after_B - 1], rho_BN[rows_B, after_B]
    part_B = (high_B - np.exp(-1)) / np.where(crossed_B, high_B - low_B, 1.0)
    return np.where(crossed_B, after_B - 1 + part_B, count - 1.0)


def neighbour_distance(perm_GN: Orders, grid: Grid) -> Floats:
    """The mean Euclidean distance on the grid from each slot's patch to the next one's, in patches, [G].

    perm_GN: [G, N] orders, or one, [N]; `perm[slot] = patch`. 1 for a path of unit steps; 0 for a single patch.
    """
    moved_GS3 = steps(np.atleast_2d(perm_GN), grid)
    if grid.size == 1:
        return np.zeros(len(moved_GS3))
    return np.sqrt((moved_GS3.astype(np.float64) ** 2).sum(2)).mean(1)


def unit_steps(perm_GN: Orders, grid: Grid) -> Floats:
    """The share of the N - 1 steps that go to a side neighbour, 0 … 1, [G]; 1 for a single patch.

    perm_GN: [G, N] orders, or one, [N].
    """
    moved_GS3 = steps(np.atleast_2d(perm_GN), grid)
    if grid.size == 1:
        return np.ones(len(moved_GS3))
    return (np.abs(moved_GS3).sum(2) == 1).mean(1)


def _as_vectors(values: NDArray[np.floating[Any]]) -> Floats:
    """[B, N, D] in double precision, from [B, N] or [B, N, D]."""
    doubles = values.astype(np.float64)
    return doubles[:, :, None] if doubles.ndim == 2 else doubles
