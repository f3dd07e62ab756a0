"""The data set `digits`: its fixed, stratified split and its normalisation."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reorder_digits.digits import Digits
from reorder_digits.settings import DigitsSettings
from reorder_digits.source import digit_pools, shares, validation_mask
from sklearn.datasets import load_digits

from reorder_core import Context, Grid
from reorder_core.conformance import check_dataset


def test_contract() -> None:
    check_dataset("digits", {})


def test_split_is_whole_disjoint_and_stratified() -> None:
    train, validation = digit_pools()
    assert (len(train), len(validation)) == (1437, 360)
    assert sorted([*train.source_P, *validation.source_P]) == list(range(1797))
    count_K = np.bincount(load_digits().target)
    exact_K = count_K * 360 / 1797
    assert np.abs(np.bincount(validation.target_P) - exact_K).max() < 1


def test_split_is_the_one_that_figures_refer_to() -> None:
    """The numbers of the validation digits, whatever the version of NumPy or scikit-learn."""
    _, validation = digit_pools()
    digest = hashlib.sha256(",".join(map(str, validation.source_P)).encode()).hexdigest()
    assert digest[:16] == "e355fea7d4df6580"


def test_pixels_are_scikit_learns() -> None:
    _, validation = digit_pools()
    np.testing.assert_array_equal(validation.ink_PHW * 16, load_digits().images[validation.source_P])


def test_normalised_by_the_training_split() -> None:
    data = Digits(DigitsSettings(), Context(Grid(2, 2)))
    images = data.train.load(range(len(data.train)), 0).images_BCHW
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-3)
    assert data.classes == tuple("0123456789")


@given(st.lists(st.integers(0, 300), min_size=1, max_size=12).filter(any), st.data())
@settings(max_examples=100, deadline=None)
def test_shares_add_up_and_are_nearest(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(counts)))
    count_K = np.array(counts)
    share_K = shares(count_K, total)
    assert share_K.sum() == total
    assert np.abs(share_K - count_K * total / count_K.sum()).max() < 1
    assert (share_K <= count_K).all()


@given(st.integers(0, 2**63 - 1), st.integers(10, 1787))
@settings(max_examples=20, deadline=None)
def test_any_split_is_stratified(seed: int, validation: int) -> None:
    target_n = load_digits().target
    assert validation_mask(target_n, validation, seed).sum() == validation


@pytest.mark.parametrize("given_settings", [{"validation": 9}, {"validation": -1}, {"split_seed": -1}, {"size": 8}])
def test_bad_settings(given_settings: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        DigitsSettings(**given_settings)
