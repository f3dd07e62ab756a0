"""The data set `cluttered_digits`: every picture a pure function of (seed, split, number), from its own split only."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reorder_digits.cluttered import ClutteredDigits
from reorder_digits.composition import Composer, enlarged
from reorder_digits.draws import Draws, key_of
from reorder_digits.settings import ClutteredDigitsSettings, PlaceSettings
from reorder_digits.source import digit_pools

from reorder_core import Context, Grid
from reorder_core.conformance import check_dataset

CONTEXT = Context(Grid(8, 8), patch=4)


def small(**given_settings: Any) -> ClutteredDigitsSettings:
    return ClutteredDigitsSettings(**{"train": 64, "validation": 32, **given_settings})


@pytest.mark.parametrize(
    "given_settings",
    [{}, {"fresh": True}, {"size": 24, "digit": 12, "clutter": 0, "noise": 0.0}, {"place": {"kind": "corner"}}],
)
def test_contract(given_settings: dict[str, Any]) -> None:
    check_dataset("cluttered_digits", {"train": 64, "validation": 32, **given_settings}, patch=4)


def test_splits_are_made_of_their_own_digits_only() -> None:
    """Provenance: whole digits and fragments come from one pool, and no digit is in both pools."""
    train, validation = digit_pools()
    assert not set(train.source_P) & set(validation.source_P)
    for pool in (train, validation):
        made = Composer(pool, small()).compose(key_of(0, 0, 0), np.arange(3000))
        own = set(pool.source_P)
        assert set(made.source_B) <= own
        assert set(made.fragment_BF.ravel()) <= own
        assert len(set(made.source_B)) > 0.8 * len(pool)


def test_fragments_are_never_cut_from_the_target() -> None:
    made = Composer(digit_pools()[1], small(clutter=40)).compose(1, np.arange(2000))
    assert not (made.fragment_BF == made.source_B[:, None]).any()


def test_targets_name_their_digit() -> None:
    pool = digit_pools()[0]
    made = Composer(pool, small()).compose(1, np.arange(500))
    class_of = dict(zip(pool.source_P, pool.target_P, strict=True))
    assert [class_of[source] for source in made.source_B] == list(made.target_B)


def test_without_clutter_and_noise_the_picture_is_the_digit_in_its_place() -> None:
    """The slow twin: one picture, put together by hand."""
    pool, plain = digit_pools()[0], small(clutter=0, noise=0.0, contrast=(1.0, 1.0))
    made = Composer(pool, plain).compose(5, np.arange(50))
    ink_PHW = enlarged(pool.ink_PHW, plain.digit)
    for number in range(50):
        expected = np.zeros((32, 32), np.float32)
        row, column = made.place_B2[number]
        digit = ink_PHW[np.flatnonzero(pool.source_P == made.source_B[number])[0]]
        expected[row : row + plain.digit, column : column + plain.digit] = digit
        np.testing.assert_array_equal(made.pixels_BSS[number], np.rint(expected * 255).astype(np.uint8))


def test_clutter_only_adds_ink() -> None:
    pool = digit_pools()[0]
    bare, full = (
        Composer(pool, small(clutter=count, noise=0.0, contrast=(1.0, 1.0))).compose(5, np.arange(40))
        for count in (0, 12)
    )
    assert (full.pixels_BSS >= bare.pixels_BSS).all()
    assert full.pixels_BSS.sum() > 1.2 * bare.pixels_BSS.sum()


@given(seed=st.integers(0, 2**63 - 1), numbers=st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_a_picture_does_not_depend_on_its_company(seed: int, numbers: list[int]) -> None:
    composer = Composer(digit_pools()[1], small())
    together = composer.compose(seed, np.array(numbers)).pixels_BSS
    alone = np.concatenate([composer.compose(seed, np.array([number])).pixels_BSS for number in numbers])
    np.testing.assert_array_equal(together, alone)


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    short, long = (ClutteredDigits(small(train=count), CONTEXT) for count in (40, 700))
    np.testing.assert_array_equal(short.train.pixels_nHW, long.train.pixels_nHW[:40])  # type: ignore[union-attr]


def test_seeds_and_splits_differ() -> None:
    one, two = ClutteredDigits(small(), CONTEXT), ClutteredDigits(small(seed=1), CONTEXT)
    assert not torch.equal(one.train.load([0, 1], 0).images_BCHW, two.train.load([0, 1], 0).images_BCHW)
    assert not torch.equal(one.train.load([0, 1], 0).images_BCHW, one.validation.load([0, 1], 0).images_BCHW)


def test_fresh_pictures_are_new_every_epoch_and_start_with_the_fixed_ones() -> None:
    fixed, fresh = ClutteredDigits(small(), CONTEXT), ClutteredDigits(small(fresh=True), CONTEXT)
    first, later = fresh.train.load(range(64), 0), fresh.train.load(range(64), 1)
    torch.testing.assert_close(first.images_BCHW, fixed.train.load(range(64), 0).images_BCHW, rtol=0, atol=0)
    assert (first.images_BCHW != later.images_BCHW).flatten(1).any(1).all()
    torch.testing.assert_close(later.images_BCHW, fresh.train.load(range(64), 1).images_BCHW, rtol=0, atol=0)
    same = [fresh.validation.load(range(32), epoch).images_BCHW for epoch in (0, 7)]
    torch.testing.assert_close(*same, rtol=0, atol=0)


def test_pictures_are_the_ones_that_figures_refer_to() -> None:
    """Which digits stand where, whatever the version of NumPy."""
    made = Composer(digit_pools()[1], small()).compose(key_of(0, 1, 0), np.arange(200))
    facts = np.concatenate([made.target_B, made.source_B, made.place_B2.ravel(), made.fragment_BF.ravel()])
    assert hashlib.sha256(facts.astype("<i8").tobytes()).hexdigest()[:16] == "ab1b05cb1f58f668"


@pytest.mark.parametrize("kind", ["normal", "uniform", "corner"])
def test_place(kind: str) -> None:
    place = PlaceSettings(kind=kind)  # type: ignore[arg-type]
    made = Composer(digit_pools()[0], small(place=place)).compose(0, np.arange(4000))
    room = 32 - 14
    assert made.place_B2.min() >= 0
    assert made.place_B2.max() <= room
    share_B2 = made.place_B2 / room
    if kind == "normal":
        assert (share_B2 < 0.5).all(1).mean() > 0.85, "usually in the upper left"
        assert np.median(share_B2) == pytest.approx(0.15, abs=0.05)
    elif kind == "uniform":
        assert share_B2.mean(0) == pytest.approx([0.5, 0.5], abs=0.03)
    else:
        assert ((share_B2 <= 0.23) | (share_B2 >= 0.77)).all()
        assert (share_B2 > 0.5).mean(0) == pytest.approx([0.5, 0.5], abs=0.05)


def test_centre_and_spread_move_the_target() -> None:
    settled = PlaceSettings(centre=(1.0, 0.5), spread=0.0)
    made = Composer(digit_pools()[0], small(place=settled)).compose(0, np.arange(20))
    assert (made.place_B2 == [18, 9]).all()


def test_splits_go_to_worker_processes() -> None:
    data = ClutteredDigits(small(fresh=True), CONTEXT)
    for split in (data.train, data.validation):
        copy = pickle.loads(pickle.dumps(split))
        torch.testing.assert_close(copy.load([3], 2).images_BCHW, split.load([3], 2).images_BCHW, rtol=0, atol=0)


def test_draws_look_random() -> None:
    draws = Draws(key_of(3), np.arange(2000))
    uniform = draws.uniform(0, 50)
    assert uniform.mean() == pytest.approx(0.5, abs=0.004)
    assert abs(np.corrcoef(uniform[:-1].ravel(), uniform[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(uniform.ravel(), draws.uniform(1, 50).ravel())[0, 1]) < 0.01
    assert (np.bincount(draws.integers(2, 50, 7).ravel(), minlength=7) / 1e5) == pytest.approx([1 / 7] * 7, abs=0.005)
    for bell in (draws.normal(3, 50), draws.bell(4, 50)):
        assert bell.mean() == pytest.approx(0, abs=0.01)
        assert bell.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"size": 12}, "14 pixels do not fit"),
        ({"fragment": 15}, "cannot be cut"),
        ({"contrast": (0.9, 0.1)}, "weaker ink first"),
        ({"train": 0}, "greater than or equal to 1"),
        ({"size": -32}, "greater than or equal to 8"),
        ({"noise": 2}, "less than or equal to 1"),
        ({"place": {"kind": "middle"}}, "'normal', 'uniform' or 'corner'"),
        ({"place": {"centre": [0.5, 1.5]}}, "less than or equal to 1"),
        ({"cluter": 3}, "Extra inputs"),
    ],
)
def test_bad_settings(given_settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ClutteredDigitsSettings(**given_settings)
