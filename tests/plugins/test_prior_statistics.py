"""Statistics of orders, by hand and by definition; and known truths about what compresses, beside them."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_compressors.lzma2 import Lzma
from reorder_compressors.settings import LzmaSettings
from reorder_prior import statistics as single
from reorder_prior.packing import pack_rows
from reorder_prior.pooled import DENSE, PairCounts

from reorder_core import Grid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import context
from reorder_core.permutation import unit_step_share
from reorder_core.settings import ComponentRef

NAMED = (
    *("row_major", "column_major", "snake", "diagonal", "zigzag", "spiral", "hilbert", "morton", "peano"),
    "random",
)
LZMA = Lzma(LzmaSettings(), context())


@cache
def order(name: str, grid: Grid) -> np.ndarray:
    return Catalogue.load().build(ComponentRef("ordering", name), context(grid)).permutation(grid)


def lzma_bytes(codes_BN: np.ndarray, codes: int, ngram: int = 1) -> int:
    return sum(LZMA.size(row.tobytes()) for row in pack_rows(codes_BN, codes, ngram))


def bits(symbols) -> float:
    counts = Counter(symbols).values()
    total = sum(counts)
    return -sum(n / total * math.log2(n / total) for n in counts)


def pooled(codes_BN: np.ndarray, codes: int = 64) -> float:
    return PairCounts(codes).add(codes_BN).conditional_entropy()


def alone(codes_BN: np.ndarray) -> float:
    """The conditional entropy of each image's own pairs, the mean over images: what `pooled.py` says not to rely on."""
    return float(np.mean([bits(pairwise(row)) - bits(row[:-1]) for row in codes_BN.tolist()]))


strings = st.integers(1, 6).flatmap(
    lambda codes: st.integers(2, 12).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, codes - 1), min_size=n, max_size=n), min_size=1, max_size=5)
    )
)
numbers = st.integers(2, 20).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(-10, 10, width=32).map(lambda x: round(x, 3)), min_size=n, max_size=n),
        min_size=1,
        max_size=4,
    )
)


# By definition


@given(strings, st.integers(1, 3), st.booleans())
@settings(deadline=None)
def test_pooled_entropies_are_those_of_all_pairs(rows, distance, sparse):
    codes_BN, codes = np.array(rows), DENSE + 1 if sparse else 6
    pairs = [pair for row in rows for pair in zip(row, row[distance:], strict=False)]
    conditional = bits(pairs) - bits(a for a, _ in pairs) if pairs else 0.0
    shared = bits(a for a, _ in pairs) + bits(b for _, b in pairs) - bits(pairs) if pairs else 0.0
    counted = PairCounts(codes, distance).add(codes_BN)
    assert counted.pairs == len(pairs)
    assert counted.conditional_entropy() == pytest.approx(conditional, abs=1e-9)
    assert counted.mutual_information() == pytest.approx(shared, abs=1e-9)


@given(strings, st.integers(0, 5), st.booleans())
@settings(deadline=None)
def test_pairs_counted_apart_and_merged_are_those_counted_at_once(rows, cut, sparse):
    codes_BN, codes = np.array(rows), DENSE + 1 if sparse else 6
    whole = PairCounts(codes).add(codes_BN)
    parts = PairCounts(codes).add(codes_BN[:cut]).merge(PairCounts(codes).add(codes_BN[cut:]))
    assert parts.pairs == whole.pairs
    assert parts.conditional_entropy() == pytest.approx(whole.conditional_entropy(), abs=1e-12)
    assert parts.mutual_information() == pytest.approx(whole.mutual_information(), abs=1e-12)


@given(numbers)
@settings(deadline=None)
def test_variation_and_correlation_are_as_defined(rows):
    values_BN = np.array(rows)
    count = values_BN.shape[1]
    np.testing.assert_allclose(single.total_variation(values_BN), np.abs(np.diff(values_BN)).mean(1), atol=1e-12)
    rho_BN = single.autocorrelation(values_BN)
    for x_N, rho_N in zip(values_BN, rho_BN, strict=True):
        y_N = x_N - x_N.mean()
        expected = [y_N[: count - k] @ y_N[k:] / (y_N @ y_N) for k in range(count)] if np.ptp(x_N) else np.ones(count)
        np.testing.assert_allclose(rho_N, expected, atol=1e-7)


@given(numbers)
@settings(deadline=None, max_examples=40)
def test_a_number_a_patch_is_a_vector_of_one(rows):
    values_BN = np.array(rows)
    for statistic in (single.total_variation, single.autocorrelation, single.autocorrelation_length):
        np.testing.assert_allclose(statistic(values_BN[:, :, None]), statistic(values_BN))


def test_vectors_by_hand():
    values_BND = np.array([[[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]])
    np.testing.assert_allclose(single.total_variation(values_BND), [2.5])
    a_BN, b_BN = np.random.default_rng(0).random((2, 3, 16))
    both = single.autocorrelation(np.stack([a_BN, b_BN], axis=2))
    weight_A, weight_B = a_BN.var(1, keepdims=True), b_BN.var(1, keepdims=True)
    expected = (weight_A * single.autocorrelation(a_BN) + weight_B * single.autocorrelation(b_BN)) / (
        weight_A + weight_B
    )
    np.testing.assert_allclose(both, expected, atol=1e-12)


def test_the_autocorrelation_length_is_where_it_falls_below_one_over_e():
    """First-order noise has ρ(k) = keep^k, which falls below 1/e at -1 / ln(keep); a line between two k is near it."""
    rng = np.random.default_rng(0)
    for keep, expected in ((0.5, 1 + (0.5 - math.exp(-1)) / 0.25), (0.9, -1 / math.log(0.9))):
        noise_BN = rng.standard_normal((200, 2000))
        values_BN = noise_BN.copy()
        for i in range(1, 2000):
            values_BN[:, i] = keep * values_BN[:, i - 1] + noise_BN[:, i]
        assert single.autocorrelation_length(values_BN).mean() == pytest.approx(expected, rel=0.05)
    assert single.autocorrelation_length(noise_BN).mean() == pytest.approx(1 - math.exp(-1), rel=0.05)
    np.testing.assert_allclose(single.autocorrelation_length(np.full((1, 9), 0.1)), [8])


@pytest.mark.parametrize("grid", [Grid(4, 6), Grid(5, 5), Grid(3, 4, 2), Grid(1, 1)], ids=str)
def test_distances_of_an_order_are_those_of_its_steps(grid):
    perm_GN = np.stack([order(name, grid) for name in NAMED])
    places_N3 = grid.places()
    for perm_N, distance, share in zip(
        perm_GN, single.neighbour_distance(perm_GN, grid), single.unit_steps(perm_GN, grid), strict=True
    ):
        gaps = [math.dist(places_N3[a], places_N3[b]) for a, b in pairwise(perm_N)]
        assert distance == pytest.approx(sum(gaps) / max(len(gaps), 1))
        assert share == pytest.approx(unit_step_share(perm_N, grid))
    assert single.unit_steps(order("snake", grid), grid)[0] == 1 or grid.frames > 1


def test_row_by_row_on_a_grid_by_hand():
    """Of eleven steps nine are one patch long; two go one row down and three columns back."""
    perm_N, grid = order("row_major", Grid(3, 4)), Grid(3, 4)
    assert single.neighbour_distance(perm_N, grid)[0] == pytest.approx((9 + 2 * math.sqrt(10)) / 11)
    assert single.unit_steps(perm_N, grid)[0] == pytest.approx(9 / 11)


@pytest.mark.parametrize("count", [0, 1])
def test_no_pair_says_nothing(count):
    codes_BN, values_BN = np.zeros((3, count), dtype=np.int64), np.zeros((3, count))
    for codes in (4, DENSE + 1):
        counted = PairCounts(codes, 2).add(codes_BN)
        assert (counted.pairs, counted.conditional_entropy(), counted.mutual_information()) == (0, 0, 0)
    assert single.total_variation(values_BN).tolist() == [0, 0, 0]
    if count:
        assert single.autocorrelation_length(values_BN).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: PairCounts(4).add(np.array([[0, 4]])), "outside 0 to 3"),
        (lambda: PairCounts(4, 0), "at least 1 slot"),
        (lambda: PairCounts(4).merge(PairCounts(5)), "count both alike"),
    ],
)
def test_what_cannot_be_counted_is_refused(call, said):
    with pytest.raises(UsageError, match=said):
        call()


# Bias of short strings, as the file says it


def test_an_image_alone_has_too_few_pairs_to_be_right_in_bits():
    codes_BN = np.random.default_rng(0).integers(0, 64, (4000, 64))
    own = alone(codes_BN[:400])
    assert 0.7 < own < 0.9
    assert own == pytest.approx(math.log2(63) - np.mean([bits(row[:-1]) for row in codes_BN[:400].tolist()]), abs=0.02)
    counted = PairCounts(64).add(codes_BN)
    bias = (64 * 64 - 64) / (2 * 4000 * 63 * math.log(2))
    assert counted.conditional_entropy() + bias == pytest.approx(6, abs=2e-3)
    assert counted.mutual_information() == pytest.approx(bias, abs=2e-3)


def test_codes_that_return_after_three_slots_share_nothing_before():
    """Mutual information at a distance sees a period that neighbours do not show."""
    period_B3 = np.random.default_rng(0).integers(0, 4, (3000, 3))
    codes_BN = np.tile(period_B3, 4)
    shared = [PairCounts(4, distance).add(codes_BN).mutual_information() for distance in (1, 2, 3, 6)]
    assert shared[:2] == pytest.approx([0, 0], abs=0.01)
    assert shared[2:] == pytest.approx([2, 2], abs=0.01)


# Known truths


def test_constant_images_are_equal_in_every_order():
    grid = Grid(8, 8)
    codes_BN = np.repeat(np.arange(6)[:, None], grid.size, axis=1)
    found = set()
    for name in NAMED:
        ordered_BN = codes_BN[:, order(name, grid)]
        per_image = (
            *(lzma_bytes(ordered_BN, 64, ngram) for ngram in (1, 2)),
            pooled(ordered_BN),
            *single.total_variation(ordered_BN / 64),
            *single.autocorrelation_length(ordered_BN / 64),
        )
        found.add(per_image)
    assert len(found) == 1


def test_shuffled_codes_destroy_every_difference():
    """Stripes differ by a third in bytes and by bits in entropy; the same codes shuffled differ by noise."""
    grid, codes_BN = Grid(16, 16), stripes()
    shuffled_BN = np.random.default_rng(1).permuted(codes_BN, axis=1)

    def spread(measure, given_BN: np.ndarray) -> float:
        found = [measure(given_BN[:, order(name, grid)]) for name in NAMED]
        return max(found) / min(found) - 1

    for measure, most in (
        (lambda x_BN: lzma_bytes(x_BN, 64), 0.01),
        (pooled, 0.02),
        (lambda x_BN: single.total_variation(x_BN / 64).mean(), 0.02),
    ):
        assert spread(measure, codes_BN) > 0.3
        assert spread(measure, shuffled_BN) < most


def stripes(images: int = 64, rows: int = 16, columns: int = 16, seed: int = 0) -> np.ndarray:
    """Horizontal stripes: one of 64 codes a row of patches, [B, N]."""
    return np.random.default_rng(seed).integers(0, 64, (images, rows)).repeat(columns, axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_stripes_by_entropy_along_them_by_lzma_across_them(seed):
    """A period is cheaper to a dictionary coder than many runs; the README of reorder_compressors explains it."""
    codes_BN, grid = stripes(seed=seed), Grid(16, 16)
    along_BN, across_BN = (codes_BN[:, order(name, grid)] for name in ("row_major", "column_major"))
    assert pooled(along_BN) < 0.6
    assert pooled(across_BN) > 3.5
    assert alone(across_BN) < alone(along_BN) < 0.4, "within one image a period is predictable: only pooled pairs tell"
    assert single.total_variation(along_BN / 63).mean() < single.total_variation(across_BN / 63).mean() / 8
    assert (
        single.autocorrelation_length(along_BN / 63).mean() > 5 * single.autocorrelation_length(across_BN / 63).mean()
    )
    assert lzma_bytes(along_BN, 64) == pytest.approx(2700, rel=0.01)
    assert lzma_bytes(across_BN, 64) == pytest.approx(1980, rel=0.01)
    assert lzma_bytes(across_BN, 64, ngram=2) < lzma_bytes(along_BN, 64, ngram=2)


def spelled(path_N: np.ndarray, images: int, codes: int = 256, words: int = 2) -> np.ndarray:
    """Images that spell, along a path, a random sequence of a few random words, a fresh vocabulary an image: [B, N]."""
    draw = np.random.default_rng(0)
    codes_BN = np.empty((images, len(path_N)), dtype=np.int64)
    for codes_N in codes_BN:
        vocabulary = [draw.integers(0, codes, draw.integers(20, 31)) for _ in range(words)]
        text = np.concatenate([vocabulary[k] for k in draw.integers(0, words, len(path_N) // 20 + 1)])
        codes_N[path_N] = text[: len(path_N)]
    return codes_BN


@pytest.mark.parametrize("name", NAMED)
def test_the_order_along_which_words_are_spelled_wins_by_a_factor_of_two(name):
    grid = Grid(24, 24)
    codes_BN = spelled(order(name, grid), images=6)
    found = {other: lzma_bytes(codes_BN[:, order(other, grid)], 256) for other in NAMED}
    ranked = sorted(found, key=found.__getitem__)
    assert ranked[0] == name
    assert found[ranked[1]] > 2 * found[name], found
