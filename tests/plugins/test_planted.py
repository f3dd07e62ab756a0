"""The data set `planted`: its tiles are what the settings say, its splits are apart, its carriers move alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reorder_planted.composition import carriers, compose, patterns
from reorder_planted.planted import Planted
from reorder_planted.settings import PlantedSettings

from reorder_core import Context, DataFacts, Grid, RunFacts
from reorder_core.conformance import check_dataset


def tiles(pixels_BSS, made):
    """[B, T, t, t]."""
    B, side, tile = len(pixels_BSS), made.side, made.tile
    return pixels_BSS.reshape(B, side, tile, side, tile).transpose(0, 1, 3, 2, 4).reshape(B, -1, tile, tile)


@pytest.mark.parametrize("given_settings", [{}, {"place": "scattered"}, {"jitter": 2}, {"noise": 0, "size": 12}])
def test_contract(given_settings):
    check_dataset("planted", {"train": 80, "validation": 40, **given_settings}, patch=4)


@given(
    st.integers(1, 6),
    st.integers(2, 5),
    st.data(),
    st.sampled_from(["block", "scattered"]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 2**63 - 1),
)
@settings(max_examples=40, deadline=None)
def test_carriers_show_the_class_and_no_other_tile_must(side, tile, data, place, distractors, seed):
    made = PlantedSettings(
        size=side * tile,
        tile=tile,
        carriers=data.draw(st.integers(1, side**2)),
        jitter=data.draw(st.integers(0, side - 1)),
        place=place,
        distractors=distractors,
        strength=3,
        noise=0,
        seed=seed,
    )
    found = compose(made, 0, range(20))
    shown_BTtt = tiles(found.pixels_BSS, made)
    pattern_Ktt = patterns(made)
    assert len({pattern.tobytes() for pattern in pattern_Ktt}) == made.classes
    for picture, (target, carrier_C) in enumerate(zip(found.target_B, found.carrier_BC, strict=True)):
        assert len({*carrier_C.tolist()}) == made.carriers
        assert (shown_BTtt[picture, carrier_C] == 3 * pattern_Ktt[target]).all()
        others_Ttt = np.delete(shown_BTtt[picture], carrier_C, axis=0)
        blank_T = (others_Ttt == 0).all(axis=(1, 2))
        assert blank_T.all() if distractors == 0 else True
        assert not blank_T.any() if distractors == 1 else True
    if made.jitter == 0:
        assert (found.carrier_BC == carriers(made)).all()


def test_distractors_say_nothing_about_the_class():
    made = PlantedSettings(noise=0, classes=2, train=4000)
    found = compose(made, 0, range(4000))
    shown_BTtt = tiles(found.pixels_BSS, made)
    is_first_BT = (shown_BTtt == patterns(made)[0]).all(axis=(2, 3))
    agrees_T = (is_first_BT == (found.target_B == 0)[:, None]).mean(axis=0)
    other_T = np.delete(agrees_T, carriers(made))
    assert (agrees_T[carriers(made)] == 1).all()
    assert np.abs(other_T - 0.5).max() < 0.04  # five standard deviations of 4,000 coins
    assert np.abs(np.bincount(found.target_B) / 4000 - 0.5).max() < 0.04


def test_the_centre_moves_the_carriers_and_nothing_else():
    first, last = (PlantedSettings(centre=centre, noise=1) for centre in ((0, 0), (1, 1)))
    assert carriers(first).tolist() == [0, 1, 8, 9]
    assert carriers(last).tolist() == [54, 55, 62, 63]
    assert carriers(PlantedSettings(carriers=1, centre=(0, 1))).tolist() == [7]
    one, two = (compose(made, 0, range(10)) for made in (first, last))
    assert (one.target_B == two.target_B).all()
    both = [*carriers(first), *carriers(last)]
    here, there = (np.delete(tiles(found.pixels_BSS, first), both, axis=1) for found in (one, two))
    np.testing.assert_array_equal(here, there)


def test_scattered_places_are_one_choice_of_the_seed():
    some = {tuple(carriers(PlantedSettings(place="scattered", seed=seed))) for seed in range(10)}
    assert len(some) == 10


def test_jitter_moves_each_picture_s_carriers_over_the_edges():
    made = PlantedSettings(jitter=2, centre=(0, 0))
    carrier_BC = compose(made, 0, range(400)).carrier_BC
    rows = {*(carrier_BC // 8).ravel().tolist()}
    assert rows == {6, 7, 0, 1, 2, 3}


def test_splits_share_no_picture_and_a_longer_one_begins_with_the_shorter():
    made = PlantedSettings(train=300, validation=200)
    data = Planted(made, Context(Grid(8, 8)))
    pictures = [*data.train.pixels_nHW, *data.validation.pixels_nHW]
    assert len({picture.tobytes() for picture in pictures}) == 500
    longer = compose(made, 0, range(400)).pixels_BSS[:300]
    np.testing.assert_array_equal(longer, compose(made, 0, range(300)).pixels_BSS)
    assert float(data.train.load(range(300), 0).images_BCHW.mean()) == pytest.approx(0, abs=1e-4)
    assert float(data.train.load(range(300), 0).images_BCHW.std()) == pytest.approx(1, abs=1e-3)


def test_other_seeds_give_other_pictures():
    one, two = (compose(PlantedSettings(seed=seed), 0, [5]).pixels_BSS for seed in (0, 1))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"tile": 5}, "not divisible into tiles of 5"),
        ({"carriers": 65}, "there are 64 tiles, not 65"),
        ({"jitter": 8}, "no room to move by 8"),
        ({"tile": 2, "classes": 17}, "has only 16 patterns"),
        ({"centre": (0, 1.5)}, "centre"),
        ({"noise": -1}, "noise"),
        ({"clutter": 1}, "clutter"),
    ],
)
def test_bad_settings(given_settings, said):
    with pytest.raises(ValidationError, match=said):
        PlantedSettings(**given_settings)


def test_a_batch_that_the_training_pictures_do_not_fill():
    facts = RunFacts(DataFacts(32, 32, 1), Grid(8, 8), 4, 64, "learned")
    assert [problem.key for problem in PlantedSettings(train=63).problems(facts)] == ["train"]
    assert [*PlantedSettings(train=64).problems(facts)] == []


def test_described_without_torch_or_numpy():
    code = (
        "import sys; from reorder_planted.settings import PlantedSettings; PlantedSettings().describe();"
        "sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
