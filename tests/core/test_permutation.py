"""The laws of permutations, for arrays and tensors alike; distances against their definitions."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reorder_core import Grid, ReorderError
from reorder_core.conformance import grids, permutations
from reorder_core.permutation import (
    apply,
    cayley,
    compose,
    identity,
    invert,
    kendall_tau,
    spearman_footrule,
    steps,
    unit_step_share,
    validate,
)

pairs = st.integers(1, 40).flatmap(lambda n: st.tuples(permutations(n), permutations(n)))
triples = st.integers(1, 40).flatmap(lambda n: st.tuples(permutations(n), permutations(n), permutations(n)))
DISTANCES = (kendall_tau, spearman_footrule, cayley)


@given(pairs)
def test_inverse_and_composition(pair):
    p, q = pair
    n = len(p)
    assert (compose(p, invert(p)) == identity(n)).all()
    assert (compose(invert(p), p) == identity(n)).all()
    assert (invert(invert(p)) == p).all()
    assert (compose(p, identity(n)) == p).all()
    assert (compose(identity(n), p) == p).all()
    assert (invert(compose(p, q)) == compose(invert(q), invert(p))).all()
    assert (invert(p)[p] == identity(n)).all()


@given(triples)
def test_composition_is_associative_and_is_application_after_application(triple):
    p, q, r = triple
    assert (compose(compose(p, q), r) == compose(p, compose(q, r))).all()
    values = np.arange(len(p) * 3).reshape(3, len(p)) ** 2
    assert (apply(compose(p, q), values) == apply(q, apply(p, values))).all()
    assert (apply(invert(p), apply(p, values)) == values).all()


@given(pairs, st.integers(0, 2**31))
def test_apply_along_every_axis_is_indexing(pair, seed):
    p, _ = pair
    n = len(p)
    values = np.random.default_rng(seed).normal(size=(2, n, 3))
    assert (apply(p, values, axis=1) == values[:, p]).all()
    assert (apply(p, values.swapaxes(1, 2), axis=-1) == values.swapaxes(1, 2)[..., p]).all()
    assert (apply(p, values[0], axis=0) == values[0][p]).all()
    assert torch.equal(apply(torch.from_numpy(p), torch.from_numpy(values), axis=1), torch.from_numpy(values[:, p]))


@given(pairs)
def test_each_entry_of_a_batch_by_its_own_row(pair):
    rows = np.stack(pair)
    values = np.arange(2 * rows.shape[1] * 2).reshape(2, -1, 2)
    wanted = np.stack([values[0][rows[0]], values[1][rows[1]]])
    assert (apply(rows, values, axis=1) == wanted).all()
    assert (apply(torch.from_numpy(rows), torch.from_numpy(values), axis=1).numpy() == wanted).all()
    assert (apply(rows[:1], values, axis=1) == values[:, rows[0]]).all()


def test_apply_moves_gradients_back_to_the_patches():
    perm = torch.tensor([2, 0, 1])
    values = torch.zeros(3, requires_grad=True)
    apply(perm, values).mul(torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values.grad.tolist() == [10.0, 100.0, 1.0]


@given(pairs)
def test_tensors_and_batches_answer_as_single_arrays(pair):
    p, q = pair
    rows_p, rows_q = np.stack([p, q, p]), np.stack([q, q, p])
    for function in DISTANCES:
        single = [function(a, b) for a, b in zip(rows_p, rows_q, strict=True)]
        assert all(isinstance(value, int | float) for value in single)
        assert function(rows_p, rows_q).tolist() == pytest.approx(single)
        batch = function(torch.from_numpy(rows_p), torch.from_numpy(rows_q))
        assert batch.tolist() == pytest.approx(single)
        assert function(torch.from_numpy(p), torch.from_numpy(q)) == pytest.approx(single[0])
    for function in (invert, validate):
        assert torch.equal(function(torch.from_numpy(rows_p)), torch.from_numpy(function(rows_p)))
    assert torch.equal(
        compose(torch.from_numpy(rows_p), torch.from_numpy(rows_q)), torch.from_numpy(compose(rows_p, rows_q))
    )


@given(pairs)
def test_distances_agree_with_their_definitions(pair):
    p, q = pair
    n = len(p)
    slot_p, slot_q = invert(p), invert(q)
    swapped = sum((slot_p[i] < slot_p[j]) != (slot_q[i] < slot_q[j]) for i, j in itertools.combinations(range(n), 2))
    couples = n * (n - 1) // 2
    assert kendall_tau(p, q) == pytest.approx(1 - 2 * swapped / couples if couples else 1.0)
    assert spearman_footrule(p, q) == sum(abs(int(slot_p[i]) - int(slot_q[i])) for i in range(n))
    # Exchange patches until q is p: each exchange puts one patch into its place.
    exchanges, left = 0, q.tolist()
    for slot in range(n):
        while left[slot] != p[slot]:
            other = left.index(p[slot])
            left[slot], left[other] = left[other], left[slot]
            exchanges += 1
    assert cayley(p, q) == exchanges


@given(triples)
def test_distances_are_distances(triple):
    p, q, r = triple
    n = len(p)
    for distance in (spearman_footrule, cayley):
        assert distance(p, p) == 0
        assert distance(p, q) == distance(q, p)
        assert (distance(p, q) == 0) == bool((p == q).all())
        assert distance(p, r) <= distance(p, q) + distance(q, r)
        assert distance(compose(r, p), compose(r, q)) == distance(p, q), "naming the patches anew changes nothing"
    assert kendall_tau(p, p) == 1.0
    assert kendall_tau(p, q) == pytest.approx(kendall_tau(q, p))
    if n > 1:
        assert kendall_tau(p, p[::-1].copy()) == -1.0
        assert kendall_tau(p, q[::-1].copy()) == pytest.approx(-kendall_tau(p, q))
    assert spearman_footrule(p, q) <= n * n // 2
    # Diaconis and Graham 1977: inversions + exchanges <= footrule <= 2 * inversions.
    inversions = (1 - kendall_tau(p, q)) * n * (n - 1) / 4
    assert inversions + cayley(p, q) - 1e-6 <= spearman_footrule(p, q) <= 2 * inversions + 1e-6


def test_all_permutations_of_five_by_enumeration():
    rows = np.array(list(itertools.permutations(range(5))))
    start = np.broadcast_to(identity(5), rows.shape)
    assert sorted(np.bincount(cayley(start, rows)).tolist()) == sorted([1, 10, 35, 50, 24]), "Stirling's numbers"
    inversions = np.rint((1 - kendall_tau(start, rows)) * 5).astype(int)
    assert np.bincount(inversions).tolist() == [1, 4, 9, 15, 20, 22, 20, 15, 9, 4, 1], "Mahonian numbers"


@settings(max_examples=50)
@given(grids(8, max_frames=2).flatmap(lambda grid: st.tuples(st.just(grid), permutations(grid.size))))
def test_steps_and_their_share_to_side_neighbours(case):
    grid, perm = case
    places = [grid.place(int(patch)) for patch in perm]
    wanted = [tuple(b - a for a, b in zip(x, y, strict=True)) for x, y in itertools.pairwise(places)]
    assert [tuple(step) for step in steps(perm, grid).tolist()] == wanted
    unit = sum(sum(map(abs, step)) == 1 for step in wanted)
    share = unit / len(wanted) if wanted else 1.0
    assert unit_step_share(perm, grid) == pytest.approx(share)
    batch = torch.from_numpy(np.stack([perm, perm]))
    assert unit_step_share(batch, grid).tolist() == pytest.approx([share, share])


@pytest.mark.parametrize(
    ("perm", "advice"),
    [
        ([0, 1, 1], "route repeats patch 1 and leaves out patch 2: name every patch exactly once"),
        ([0, 1, 3], "route names patch 3, but its 3 patches are 0 to 2"),
        ([-1, 0, 1], "route names patch -1, but its 3 patches are 0 to 2"),
        ([0, 1], "route has 2 patches where 3 are needed"),
        ([0.0, 1.0, 2.0], "route holds something else than whole numbers"),
        ([True, False, True], "route holds something else than whole numbers"),
        (["a", "b", "c"], "route holds something else than whole numbers"),
        ([[0, 1, 2], [0, 1]], "route is no list of patch numbers"),
        ([], "route is empty"),
        (None, "route is empty"),
        ([[0, 1, 2], [2, 2, 0]], "route repeats patch 2 and leaves out patch 1"),
        (torch.tensor([0, 2, 2]), "route repeats patch 2 and leaves out patch 1"),
        (torch.tensor([0.0, 1.0, 2.0]), "route holds something else than whole numbers"),
        (torch.tensor([True, False, True]), "route holds something else than whole numbers"),
    ],
)
def test_what_is_no_permutation_is_answered_in_one_sentence(perm, advice):
    with pytest.raises(ReorderError) as error:
        validate(perm, 3, "route")
    assert str(error.value).startswith(advice)
    assert "\n" not in str(error.value)


def test_what_is_a_permutation_comes_back_as_int64():
    assert validate([1, 0]).dtype == np.int64
    assert validate(np.array([1, 0], dtype=np.uint8)).dtype == np.int64
    assert validate(torch.tensor([1, 0], dtype=torch.int32)).dtype == torch.int64


@pytest.mark.parametrize(("perm", "axis"), [(np.arange(3), 0), (np.zeros((3, 4), dtype=int), 1)])
def test_apply_refuses_what_does_not_fit(perm, axis):
    with pytest.raises(ReorderError, match=r"does not fit|choose another axis"):
        apply(perm, np.zeros((2, 4)), axis)


def test_steps_refuse_an_order_of_another_grid():
    with pytest.raises(ReorderError, match="it needs 6"):
        steps(identity(5), Grid(2, 3))


def test_arrays_need_no_torch():
    code = (
        "import sys, numpy as np\nfrom reorder_core.permutation import *\n"
        "kendall_tau(identity(9), identity(9)[::-1].copy())\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
