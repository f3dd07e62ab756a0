"""The data set `digit_scenes`: what it says of a scene is true, and a pure function of (seed, split, number)."""

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
from reorder_digits.composition import enlarged
from reorder_digits.draws import Draws, key_of
from reorder_digits.scenes import DigitScenes
from reorder_digits.scenes_composition import INKED, SceneComposer
from reorder_digits.scenes_placing import placed
from reorder_digits.settings import LOOKS, DigitScenesSettings, rows_for
from reorder_digits.source import digit_pools

from reorder_core import Context, Grid
from reorder_core.conformance import check_dataset

CONTEXT = Context(Grid(8, 8), patch=8)
TARGETS = ("boxes", "mask", "classes", "captions", "questions")
CROWDED = {"digits": (3, 4), "overlap": 0.5, "size": 48, "side": (12, 24)}


def small(**given_settings: Any) -> DigitScenesSettings:
    return DigitScenesSettings(**{"train": 64, "validation": 32, **given_settings})


def built(**given_settings: Any) -> DigitScenes:
    return DigitScenes(small(**given_settings), CONTEXT)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_contract(target: str, fresh: bool) -> None:
    check_dataset("digit_scenes", {"train": 40, "validation": 20, "target": target, "fresh": fresh}, patch=8)


@pytest.mark.parametrize("difficulty", LOOKS)
def test_splits_are_made_of_their_own_digits_only(difficulty: str) -> None:
    for pool in digit_pools():
        made = SceneComposer(pool, small(difficulty=difficulty)).compose(key_of(0, 0, 0), np.arange(1500))
        assert set(made.source_BO[made.source_BO >= 0]) <= set(pool.source_P)
        assert set(made.fragment_BF.ravel()) <= set(pool.source_P)
        label_of = dict(zip(pool.source_P, pool.target_P, strict=True))
        label_of[-1] = -1
        assert [label_of[source] for source in made.source_BO.ravel()] == made.label_BO.ravel().tolist()


def test_two_data_sets_share_no_digit() -> None:
    data = built(train=400, validation=400)
    one, two = (set(split.made.source_BO.ravel()) - {-1} for split in (data.train, data.validation))
    assert one
    assert two
    assert not one & two


@pytest.mark.parametrize("given_settings", [{}, {"difficulty": "hard"}, CROWDED])
def test_boxes_are_tight_around_masks_inside_the_picture(given_settings: dict[str, Any]) -> None:
    data = built(**given_settings)
    size = data.facts.width
    for found in data.train.load(range(64), 0).target:
        assert found.boxes_O4.dtype == torch.float32
        assert found.masks_OHW.dtype == torch.bool
        for box, mask_HW, area in zip(found.boxes_O4.tolist(), found.masks_OHW, found.area_O.tolist(), strict=True):
            row, column = mask_HW.nonzero(as_tuple=True)
            assert box == [column.min(), row.min(), column.max() + 1, row.max() + 1]
            assert 0 <= box[0] < box[2] <= size
            assert 0 <= box[1] < box[3] <= size
            assert area == mask_HW.sum()


@pytest.mark.parametrize("difficulty", LOOKS)
def test_digits_stand_clear_of_each_other(difficulty: str) -> None:
    for found in built(difficulty=difficulty).train.targets():
        assert found.masks_OHW.sum(0).max() == 1


def test_overlap_lets_them_cross_and_the_last_lies_on_top() -> None:
    boxes, masks = built(**CROWDED), built(**CROWDED, target="mask")
    crossing = 0
    for found, mask_HW in zip(boxes.train.targets(), masks.train.targets(), strict=True):
        crossing += int((found.masks_OHW.sum(0) > 1).any())
        expected_HW = torch.zeros_like(mask_HW)
        for one_HW, label in zip(found.masks_OHW, found.label_O, strict=True):
            expected_HW[one_HW] = 1 + label
        assert torch.equal(mask_HW, expected_HW)
    assert crossing > 16


def test_targets_agree_about_a_scene() -> None:
    boxes, masks, classes = (list(built(target=target).train.targets()) for target in TARGETS[:3])
    for found, mask_HW, class_K in zip(boxes, masks, classes, strict=True):
        assert mask_HW.dtype == torch.int64
        assert class_K.dtype == torch.float32
        assert set(class_K.nonzero().flatten().tolist()) == set(found.label_O.tolist())
        assert set(mask_HW.unique().tolist()) == {0, *(1 + found.label_O).tolist()}
    names = built(target="mask").classes
    assert names == ("background", *"0123456789")
    assert built().classes == tuple("0123456789")
    assert built(target="captions").classes == ()


def test_without_noise_the_picture_is_its_digits_in_their_boxes() -> None:
    """The slow twin: each scene put together by hand."""
    pool, plain = digit_pools()[0], small(noise=0.0, contrast=(1.0, 1.0), side=(16, 16))
    made = SceneComposer(pool, plain).compose(5, np.arange(40))
    ink_PHW = enlarged(pool.ink_PHW, 16)
    for number in range(40):
        expected = np.zeros((64, 64), np.float32)
        for one in range(made.count_B[number]):
            digit = ink_PHW[np.flatnonzero(pool.source_P == made.source_BO[number, one])[0]]
            rows, columns = np.nonzero(digit >= INKED)
            left, top = made.box_BO4[number, one, :2] - [columns.min(), rows.min()]
            expected[top : top + 16, left : left + 16] = np.maximum(expected[top : top + 16, left : left + 16], digit)
        np.testing.assert_array_equal(made.pixels_BSS[number], np.rint(expected * 255).astype(np.uint8))


@given(seed=st.integers(0, 2**63 - 1), digits=st.integers(1, 8), overlap=st.sampled_from([0.0, 0.3]), data=st.data())
@settings(max_examples=40, deadline=None)
def test_digits_that_fit_always_find_a_place(seed: int, digits: int, overlap: float, data: Any) -> None:
    """Even where they fill their cells, so that hardly any scene can be laid out by chance."""
    size = data.draw(st.integers(8 * rows_for(digits), 96))
    side_BO = 8 + Draws(seed, np.arange(50)).integers(0, digits, size // rows_for(digits) - 7)
    place_BO2 = placed(Draws(seed, np.arange(50)), side_BO, np.full(50, digits), size, overlap)
    assert place_BO2.min() >= 0
    assert (place_BO2 + side_BO[..., None]).max() <= size
    for one in range(digits):
        for other in range(one):
            end = np.minimum(*(place_BO2[:, place] + side_BO[:, place, None] for place in (one, other)))
            shared = np.maximum(0, end - np.maximum(place_BO2[:, one], place_BO2[:, other])).prod(-1)
            assert (shared <= overlap * np.minimum(side_BO[:, one], side_BO[:, other]) ** 2).all()


@given(seed=st.integers(0, 2**63 - 1), numbers=st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_a_scene_does_not_depend_on_its_company(seed: int, numbers: list[int]) -> None:
    composer = SceneComposer(digit_pools()[1], small(difficulty="hard"))
    together = composer.compose(seed, np.array(numbers))
    for place, number in enumerate(numbers):
        alone = composer.compose(seed, np.array([number]))
        np.testing.assert_array_equal(together.pixels_BSS[place], alone.pixels_BSS[0])
        np.testing.assert_array_equal(together.box_BO4[place], alone.box_BO4[0])


def test_fragments_and_noise_move_no_digit() -> None:
    bare, full = (built(noise=noise, clutter=clutter) for noise, clutter in ((0.0, 0), (0.2, 20)))
    np.testing.assert_array_equal(bare.train.made.box_BO4, full.train.made.box_BO4)
    assert full.train.made.pixels_BSS.mean() > 1.2 * bare.train.made.pixels_BSS.mean()


@pytest.mark.parametrize("target", TARGETS)
def test_a_longer_set_begins_with_the_shorter_one(target: str) -> None:
    short, long = (built(train=count, target=target).train for count in (40, 700))
    np.testing.assert_array_equal(short.made.pixels_BSS, long.made.pixels_BSS[:40])
    assert short.said == long.said[:40]


@pytest.mark.parametrize("target", ["boxes", "captions", "questions"])
def test_fresh_scenes_are_new_every_epoch_and_start_with_the_fixed_ones(target: str) -> None:
    fixed, fresh = built(target=target), built(target=target, fresh=True)
    first, later = fresh.train.load(range(64), 0), fresh.train.load(range(64), 1)
    assert torch.equal(first.images_BCHW, fixed.train.load(range(64), 5).images_BCHW)
    assert (first.images_BCHW != later.images_BCHW).flatten(1).any(1).all()
    if target != "boxes":
        assert first.target == fixed.train.load(range(64), 5).target
        assert first.target != later.target
        assert fresh.train.load([9, 3], 1).target == [later.target[9], later.target[3]]
    assert torch.equal(fresh.validation.load([7], 0).images_BCHW, fresh.validation.load([7], 4).images_BCHW)


def test_targets_are_those_that_are_loaded() -> None:
    for target in ("captions", "questions"):
        split = built(target=target).train
        assert list(split.targets()) == split.load(range(len(split)), 0).target


def test_several_questions_share_a_picture() -> None:
    split = built(target="questions", questions_per_scene=3).train
    assert len(split) == 3 * 64
    batch = split.load([3, 4, 5, 6], 0)
    assert torch.equal(batch.images_BCHW[0], batch.images_BCHW[2])
    assert not torch.equal(batch.images_BCHW[2], batch.images_BCHW[3])
    assert len({(question.text, question.name) for question in batch.target}) == 4


def test_splits_go_to_worker_processes() -> None:
    split = built(target="captions", fresh=True).train
    copy = pickle.loads(pickle.dumps(split))
    assert copy.load([3], 2).target == split.load([3], 2).target


def test_scenes_are_the_ones_that_figures_refer_to() -> None:
    made = SceneComposer(digit_pools()[1], small()).compose(key_of(0, 1, 0), np.arange(200))
    facts = np.concatenate([made.label_BO.ravel(), made.source_BO.ravel(), made.box_BO4.ravel()])
    assert hashlib.sha256(facts.astype("<i8").tobytes()).hexdigest()[:16] == "beb4be32b5357fc9"


def test_difficulty_is_a_bundle_that_settings_override() -> None:
    assert small().look() == LOOKS["medium"]
    assert small(difficulty="hard").look().digits == (3, 6)
    changed = small(difficulty="hard", digits=(2, 3), noise=0.0).look()
    assert (changed.digits, changed.noise, changed.side, changed.clutter) == ((2, 3), 0.0, (12, 20), 8)


def test_described_without_building() -> None:
    facts = {target: small(target=target).describe() for target in TARGETS}
    assert {target: facts[target].classes for target in TARGETS} == {
        **{"boxes": 10, "mask": 11, "classes": 10, "captions": None, "questions": None}
    }
    assert (facts["questions"].train, facts["questions"].validation) == (128, 64)
    assert all(facts[target].target == target for target in TARGETS)


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"size": 40}, "40 pixels do not hold 4 digits of up to 22 in 2 rows: make it 44"),
        ({"digits": (3, 2)}, "smaller number first"),
        ({"digits": (0, 2)}, "greater than or equal to 1"),
        ({"digits": (1, 9)}, "less than or equal to 8"),
        ({"side": (20, 14)}, r"smaller number first, \[14, 20\]"),
        ({"contrast": (0.9, 0.1)}, "smaller number first"),
        ({"clutter": 2, "fragment": 23}, "cannot be cut"),
        ({"overlap": 0.9}, "less than or equal to 0.5"),
        ({"captions": 6}, "less than or equal to 5"),
        ({"target": "class"}, "'boxes', 'mask', 'classes', 'captions' or 'questions'"),
        ({"target": "questions", "kinds": ["left"]}, "add exist"),
        ({"target": "questions", "kinds": []}, "at least 1"),
        ({"difficulty": "harder"}, "'easy', 'medium' or 'hard'"),
    ],
)
def test_bad_settings(given_settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DigitScenesSettings(**given_settings)
