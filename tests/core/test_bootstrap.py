"""The paired bootstrap: right on average, symmetric, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reorder_core.bootstrap import paired_bootstrap
from reorder_core.errors import UsageError

SCORES = hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-10, 10).map(lambda value: round(value, 3)))


def test_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits, trials = 0, 400
    for trial in range(trials):
        hard_B = rng.random(300)
        a_B = rng.random(300) < 0.25 + 0.7 * hard_B  # true mean 0.60
        b_B = rng.random(300) < 0.15 + 0.7 * hard_B  # true mean 0.50
        interval = paired_bootstrap(a_B, b_B, resamples=1000, seed=trial)
        hits += interval.low <= 0.1 <= interval.high
    assert 0.91 <= hits / trials <= 0.985


def test_width_agrees_with_the_normal_law() -> None:
    rng = np.random.default_rng(1)
    difference_B = rng.standard_normal(500)
    interval = paired_bootstrap(difference_B, np.zeros(500), resamples=20_000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * difference_B.std() / np.sqrt(500), rel=0.03)


@given(a_B=SCORES, seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_equal_runs_differ_by_exactly_nothing(a_B: np.ndarray, seed: int) -> None:
    interval = paired_bootstrap(a_B, a_B, resamples=50, seed=seed)
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)
    assert not interval.excludes_zero


@given(a_B=SCORES, shift=st.floats(-3, 3), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_a_constant_lead_is_certain(a_B: np.ndarray, shift: float, seed: int) -> None:
    interval = paired_bootstrap(a_B + shift, a_B, resamples=50, seed=seed)
    assert interval.low == pytest.approx(shift, abs=1e-9)
    assert interval.high == pytest.approx(shift, abs=1e-9)


def test_swapping_the_runs_turns_the_interval_round() -> None:
    rng = np.random.default_rng(2)
    a_B, b_B = rng.random(400) < 0.7, rng.random(400) < 0.6
    one, other = paired_bootstrap(a_B, b_B, seed=3), paired_bootstrap(b_B, a_B, seed=3)
    assert one.mean == -other.mean
    assert one.low == pytest.approx(-other.high, abs=0.003)
    assert one.high == pytest.approx(-other.low, abs=0.003)


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(4)
    a_B, b_B = rng.random(100), rng.random(100)
    assert paired_bootstrap(a_B, b_B, seed=1) == paired_bootstrap(a_B, b_B, seed=1)
    assert paired_bootstrap(a_B, b_B, seed=1) != paired_bootstrap(a_B, b_B, seed=2)


def test_many_images_and_resamples_need_little_memory() -> None:
    rng = np.random.default_rng(5)
    a_B, b_B = rng.random(50_000) < 0.58, rng.random(50_000) < 0.57
    interval = paired_bootstrap(a_B, b_B)
    assert interval.low < interval.mean < interval.high


@pytest.mark.parametrize(
    ("a_B", "b_B", "advice"),
    [([1.0], [1.0, 0.0], "same images"), ([], [], "same images"), ([np.nan], [1.0], "not finite")],
)
def test_scores_that_do_not_pair(a_B: list[float], b_B: list[float], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        paired_bootstrap(a_B, b_B)
