"""Orders read off the data: hidden orders are found, tours cannot be shortened by a turn, edges are said."""

from __future__ import annotations

from itertools import pairwise
from itertools import permutations as arrangements

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_data_orderings import greedy
from reorder_data_orderings.greedy import best_turn, distances, nearest_neighbour_tour, tour_length, two_opt
from reorder_data_orderings.spectral import correlations, fiedler_vector, seriate

from reorder_core import ComponentRef, Context, Grid, UnsupportedGrid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_ordering, context
from reorder_core.patches import cut

NAMES = ("spectral", "greedy_similarity")


def built(name, grid, **written):
    return Catalogue.load().build(ComponentRef("ordering", name, written), context(grid))


def order(name, pictures, grid, **written):
    ordering = built(name, grid, **written)
    ordering.fit(pictures, grid, None)
    return ordering.permutation(grid)


def chain(hidden_N, images=400, pixels=2, hold=0.9, seed=0):
    """Images whose patches, read in the hidden order, are a random walk that forgets: [n, 1, pixels, N * pixels]."""
    rng = np.random.default_rng(seed)
    N = len(hidden_N)
    walk = np.empty((images, N, pixels * pixels), np.float32)
    walk[:, 0] = rng.standard_normal(walk[:, 0].shape)
    for slot in range(1, N):
        walk[:, slot] = hold * walk[:, slot - 1] + np.sqrt(1 - hold**2) * rng.standard_normal(walk[:, slot].shape)
    patches_nNP = np.empty_like(walk)
    patches_nNP[:, hidden_N] = walk
    return patches_nNP.reshape(images, N, pixels, pixels).transpose(0, 2, 1, 3).reshape(images, 1, pixels, N * pixels)


def smooth(rows, columns, images=200, patch=2, seed=0):
    """Images of a few random low waves: near places are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: rows * patch, : columns * patch]
    found = np.zeros((images, 1, rows * patch, columns * patch), np.float32)
    for _ in range(6):
        a, b, phase, size = (rng.normal(size=(images, 1, 1, 1)) for _ in range(4))
        found += size * np.cos(2 * (a * y / y.max() + b * x / x.max()) + 6 * phase)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_of_an_ordering(name):
    check_ordering(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outer", ["reverse", "flip", "transpose", "rotate"])
def test_transformations_of_them_are_fitted_too(name, outer):
    check_ordering(outer, {"of": name}, max_side=5)


@pytest.mark.parametrize("name", NAMES)
def test_reverse_reads_the_fitted_order_backwards(name):
    grid, images = Grid(4, 5), smooth(4, 5)
    backwards = built("reverse", grid, of=name)
    backwards.fit(images, grid, None)
    assert (backwards.permutation(grid) == order(name, images, grid)[::-1]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hidden_chain_is_found(name, seed):
    hidden_N = np.random.default_rng(seed).permutation(24)
    found_N = order(name, chain(hidden_N, seed=seed), Grid(1, 24), images=400)
    assert (found_N == hidden_N).all() or (found_N == hidden_N[::-1]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10**6), st.floats(0.05, 3))
def test_seriation_finds_every_robinson_order(N, seed, fall):
    """Similarity that falls with the distance in a hidden order, also below 0."""
    hidden_N = np.random.default_rng(seed).permutation(N)
    place_N = np.argsort(hidden_N)
    apart_NN = np.abs(place_N[:, None] - place_N)
    found_N = seriate(np.exp(-fall * apart_NN / N) + 0.01)
    assert (found_N == hidden_N).all() or (found_N == hidden_N[::-1]).all()


def test_the_sign_follows_the_patch_number():
    rng = np.random.default_rng(3)
    for _ in range(20):
        weight_MM = rng.random((9, 9))
        vector_M = fiedler_vector(weight_MM + weight_MM.T)
        assert vector_M @ np.arange(9) > 0
        assert abs(vector_M.sum()) < 1e-9


def test_a_square_grid_without_a_favourite_axis_is_read_along_the_ramp():
    """Rows and columns share one eigenspace: the ramp decides, and row follows row."""
    row_N, column_N = np.divmod(np.arange(16), 4)
    similarity_NN = np.exp(-np.hypot(row_N[:, None] - row_N, column_N[:, None] - column_N))
    assert (seriate(similarity_NN) // 4).tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    shaken_NN = similarity_NN + 1e-14 * np.random.default_rng(0).random((16, 16))
    assert (seriate(shaken_NN + shaken_NN.T) == seriate(similarity_NN)).all(), "rounding decides nothing"
    assert seriate(np.ones((7, 7))).tolist() == list(range(7)), "all alike"


def test_parts_without_a_connection_follow_each_other_by_size():
    similarity_NN = np.eye(9)
    for part in ([1, 4, 7], [0, 2, 3, 8]):
        for one, next_one in pairwise(part):
            similarity_NN[one, next_one] = similarity_NN[next_one, one] = 0.5
    similarity_NN[0, 1] = similarity_NN[1, 0] = -0.9
    assert seriate(similarity_NN).tolist() == [0, 2, 3, 8, 1, 4, 7, 5, 6]


def test_a_weak_bridge_is_still_a_connection():
    weight_MM = np.kron(np.eye(2), np.ones((4, 4)))
    weight_MM[0, 4] = weight_MM[4, 0] = 1e-7
    vector_M = fiedler_vector(weight_MM)
    assert (vector_M[:4] < 0).all()
    assert (vector_M[4:] > 0).all()


def test_places_that_never_change_come_last_in_their_order():
    images = smooth(4, 4)
    images[:, :, :2, :2] = 7.0
    images[:, :, 4:6, 2:4] = np.float32(0.1)
    found_N = order("spectral", images, Grid(4, 4))
    assert found_N[-2:].tolist() == [0, 9]
    same = np.repeat(images[:1], 5, axis=0)
    assert order("spectral", same, Grid(4, 4)).tolist() == list(range(16))


def test_correlations_are_those_of_numpy():
    patches_nNP = np.random.default_rng(0).random((50, 5, 1), dtype=np.float32)
    np.testing.assert_allclose(correlations(patches_nNP), np.corrcoef(patches_nNP[:, :, 0].T), atol=1e-5)
    assert np.abs(correlations(1e4 + 100 * patches_nNP) - correlations(patches_nNP)).max() < 1e-3


def test_distances_are_those_of_the_definition():
    patches_nNP = np.random.default_rng(0).random((6, 5, 4), dtype=np.float32)
    pairs = patches_nNP[:, :, None] - patches_nNP[:, None]
    np.testing.assert_allclose(distances(patches_nNP), np.sqrt((pairs**2).mean(-1)).mean(0), atol=1e-5)
    twins = np.repeat(100 * patches_nNP[:, :1], 5, axis=1)
    assert (distances(twins) == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 14), st.integers(0, 10**6))
def test_no_turn_shortens_a_tour(N, seed):
    rng = np.random.default_rng(seed)
    distance_NN = rng.random((N, N))
    distance_NN += distance_NN.T
    first_N = rng.permutation(N)
    tour_N = two_opt(first_N, distance_NN)
    assert np.sort(tour_N).tolist() == list(range(N))
    length = tour_length(tour_N, distance_NN)
    assert length <= tour_length(first_N, distance_NN) + 1e-12
    for begin in range(N):
        for end in range(begin + 1, N + 1):
            turned_N = np.concatenate([tour_N[:begin], tour_N[begin:end][::-1], tour_N[end:]])
            assert tour_length(turned_N, distance_NN) > length - 1e-7


def test_tours_of_seven_places_against_all_of_them():
    """Nearest neighbour from everywhere and 2-opt: never better than the best of 5,040, and within a tenth of it."""
    rng, all_of = np.random.default_rng(5), np.array(list(arrangements(range(7))))
    excess = []
    for _ in range(30):
        place_N2 = rng.random((7, 2))
        distance_NN = np.linalg.norm(place_N2[:, None] - place_N2, axis=-1)
        best = distance_NN[all_of[:, :-1], all_of[:, 1:]].sum(axis=1).min()
        excess.append(tour_length(two_opt(nearest_neighbour_tour(distance_NN, 7), distance_NN), distance_NN) / best - 1)
    assert min(excess) > -1e-9
    assert np.mean(excess) < 0.05


def test_nearest_neighbours_one_after_the_other():
    place_N = np.array([0.0, 1.0, 2.5, 10.0])
    distance_NN = np.abs(place_N[:, None] - place_N)
    assert nearest_neighbour_tour(distance_NN, 1).tolist() == [0, 1, 2, 3]
    assert nearest_neighbour_tour(np.zeros((4, 4)), 4).tolist() == [0, 1, 2, 3]


def test_two_opt_and_more_starts_shorten_the_way():
    images, grid = smooth(7, 7, patch=3) + np.random.default_rng(0).normal(0, 0.2, (200, 1, 21, 21)), Grid(7, 7)
    distance_NN = distances(cut(images, grid))
    short = tour_length(order("greedy_similarity", images, grid, images=200), distance_NN)
    single = tour_length(order("greedy_similarity", images, grid, images=200, starts=1), distance_NN)
    plain = tour_length(order("greedy_similarity", images, grid, images=200, starts=1, two_opt=False), distance_NN)
    assert single < plain
    assert short < tour_length(np.arange(49), distance_NN)


@pytest.mark.parametrize("name", NAMES)
def test_only_so_many_images_are_looked_at(name):
    images, grid = smooth(3, 4, images=60), Grid(3, 4)
    changed = images.copy()
    changed[20:] = np.random.default_rng(0).random(changed[20:].shape)
    assert (order(name, images, grid, images=20) == order(name, changed, grid, images=20)).all()


@pytest.mark.parametrize("images", [256, 2])
def test_a_tour_of_196_patches_is_soon_short(images, monkeypatch):
    """How often 2-opt looks, in rounds through the tour, from noise; benchmarks/orderings.py has the seconds."""
    looks = []
    monkeypatch.setattr(greedy, "best_turn", lambda *given: looks.append(1) or best_turn(*given))
    order("greedy_similarity", np.random.default_rng(0).random((images, 1, 56, 56), dtype=np.float32), Grid(14, 14))
    assert 196 < len(looks) < 20 * 196


def test_it_says_what_it_cannot_do():
    for name in NAMES:
        ordering = built(name, Grid(2, 2))
        with pytest.raises(UsageError, match="show it some with fit"):
            ordering.permutation(Grid(2, 2))
        with pytest.raises(UsageError, match="cannot be cut into 2x2 patches"):
            ordering.fit(np.zeros((3, 1, 5, 4)), Grid(2, 2), None)
        with pytest.raises(UsageError, match="no finite number"):
            ordering.fit(np.full((3, 1, 4, 4), np.nan), Grid(2, 2), None)
        with pytest.raises(UsageError, match=r"must be \[n, C, H, W\]"):
            ordering.fit(np.zeros((0, 1, 4, 4)), Grid(2, 2), None)
        ordering.fit(np.random.default_rng(0).random((3, 1, 4, 4)), Grid(2, 2), None)
        with pytest.raises(UnsupportedGrid, match="fitted on a grid of 2x2, and has no order for 2x3"):
            ordering.permutation(Grid(2, 3))
        with pytest.raises(UnsupportedGrid, match="not of 2 frames"):
            ordering.permutation(Grid(2, 2, 2))


def test_a_context_is_all_they_need():
    assert Context(Grid(1, 1)).generator is None
    assert order("spectral", np.zeros((2, 1, 2, 2)), Grid(1, 1)).tolist() == [0]
