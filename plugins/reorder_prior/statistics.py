"""What an order does to an image, without a compressor: entropies, variation, correlation, distances on the grid.

Codes and values come in the order of the sequence, `codes_BN[:, perm]`. Each statistic is one number an image,
float64 [B], or one an order, [G], so that a bootstrap over images can say how sure a difference is.

**Short strings.** Entropies of one image, in bits, are plug-in estimates from N codes, and far too low where a symbol
hardly ever comes twice: by about (m - 1) / (2 n ln 2) for m different symbols among n (Miller 1955), and never above
log2 n. An image of 64 patches has 63 pairs, most of them different, so that its own conditional entropy is near
log2(63) less its unigram entropy whatever the order: 0.8 bits for random codes out of 64, where the truth is 6. It
still tells which of two orders repeats more pairs *within* an image. Estimates pooled over a data set (`pooled.py`)
have pairs enough to be right in bits, and see what images share.

B images, G orders, N slots, D values of a patch, K codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid
from reorder_core.permutation import steps

Codes = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


def unigram_entropy(codes_BN: Codes) -> Floats:
    """H(c) of each image's codes, bits [B]: 0 … log2 N, the same in every order. Too low for short strings."""
    return _entropy_of_rows(codes_BN)


def bigram_entropy(codes_BN: Codes) -> Floats:
    """H(c_{i+1} | c_i) = H(c_i, c_{i+1}) - H(c_i) over each image's own N - 1 pairs, bits [B]; 0 for a single patch.

    Too low for short strings (see above), and a period within the image counts as predictable: of stripes it prefers
    the order across them, as LZMA does, where `pooled_bigram_entropy` prefers the one along them.
    """
    if codes_BN.shape[1] < 2:
        return np.zeros(len(codes_BN))
    return _entropy_of_rows(_pairs(codes_BN, 1)) - _entropy_of_rows(codes_BN[:, :-1])


def mutual_information(codes_BN: Codes, distance: int = 1) -> Floats:
    """I(c_i; c_{i+d}) = H(c_i) + H(c_{i+d}) - H(c_i, c_{i+d}) over each image's own N - d pairs, bits [B].

    0 where the string is no longer than d. Too high for short strings, by as much as the pairs' entropy is too low.
    """
    if codes_BN.shape[1] <= distance:
        return np.zeros(len(codes_BN))
    first_B, second_B = _entropy_of_rows(codes_BN[:, :-distance]), _entropy_of_rows(codes_BN[:, distance:])
    return first_B + second_B - _entropy_of_rows(_pairs(codes_BN, distance))


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


def neighbour_distance(perm_GN: Codes, grid: Grid) -> Floats:
    """The mean Euclidean distance on the grid from each slot's patch to the next one's, in patches, [G].

    perm_GN: [G, N] orders, or one, [N]; `perm[slot] = patch`. 1 for a path of unit steps; 0 for a single patch.
    """
    moved_GS3 = steps(np.atleast_2d(perm_GN), grid)
    if grid.size == 1:
        return np.zeros(len(moved_GS3))
    return np.sqrt((moved_GS3.astype(np.float64) ** 2).sum(2)).mean(1)


def unit_steps(perm_GN: Codes, grid: Grid) -> Floats:
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


def _pairs(codes_BN: Codes, distance: int) -> NDArray[np.integer[Any]]:
    """One number for each pair (c_i, c_{i+d}), [B, N - d]; 32 bits where they do, for they sort faster."""
    base = int(codes_BN.max(initial=0)) + 1
    wide = codes_BN.astype(np.int32 if base * base < 1 << 31 else np.int64)
    return wide[:, :-distance] * base + wide[:, distance:]


def _entropy_of_rows(symbol_BN: NDArray[np.integer[Any]]) -> Floats:
    """Plug-in entropy of each row's symbols, bits [B].

    In a sorted row equal symbols form runs. The r-th of a run adds r log2 r - (r-1) log2 (r-1), which sums to n log2 n
    over a run of n: so H = log2 N - Σ / N needs no table of symbols.
    """
    count = symbol_BN.shape[1]
    sorted_BN = np.sort(symbol_BN, axis=1)
    start_BN = np.zeros(sorted_BN.shape, dtype=np.int32)
    slot_N = np.arange(count, dtype=np.int32)
    np.multiply(sorted_BN[:, 1:] != sorted_BN[:, :-1], slot_N[1:], out=start_BN[:, 1:])
    np.maximum.accumulate(start_BN, axis=1, out=start_BN)
    step_N = np.diff(_n_log_n(np.arange(count + 1)))
    return np.log2(max(count, 1)) - step_N[slot_N - start_BN].sum(1) / max(count, 1)


def _n_log_n(count_N: NDArray[np.integer[Any]]) -> Floats:
    return count_N * np.log2(np.maximum(count_N, 1))
