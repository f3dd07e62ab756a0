"""Schedules at their start, peak and end, and between them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reorder_core.errors import UsageError
from reorder_core.schedule import SHAPES, lr_factor, shape

ENDS = {
    "constant": (1.0, 1.0, 1.0),
    "linear": (1.0, 0.5, 0.0),
    "cosine": (1.0, 0.5, 0.0),
    "triangular": (0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_start_middle_end(name: str) -> None:
    assert [shape(name)(at) for at in (0.0, 0.5, 1.0)] == pytest.approx(ENDS[name], abs=1e-12)


@given(name=st.sampled_from(list(SHAPES)), progress=st.floats(-1, 2))
def test_values_stay_inside_and_progress_is_clamped(name: str, progress: float) -> None:
    assert 0.0 <= shape(name)(progress) <= 1.0
    assert shape(name)(progress) == shape(name)(min(1.0, max(0.0, progress)))


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'triangular'"):
        shape("triangle")


def test_learning_rate_at_start_peak_and_end() -> None:
    factor = [lr_factor(step, total=100, warm_up=10, hold_until=60, final=0.01) for step in range(100)]
    assert factor[0] == pytest.approx(0.1)
    assert factor[9] == 1.0
    assert set(factor[9:60]) == {1.0}, "flat until the policy is frozen"
    assert factor[60] < 1.0
    assert factor[79] == pytest.approx(0.01 + 0.99 * 0.5)
    assert factor[99] == pytest.approx(0.01)
    assert all(a <= b for a, b in pairwise(factor[:60]))
    assert all(a > b for a, b in pairwise(factor[59:]))


def test_without_warm_up_or_hold() -> None:
    assert lr_factor(0, total=4) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert lr_factor(3, total=4) == pytest.approx(0.0)
    assert [lr_factor(s, total=4, final=0.5, shape="constant") for s in range(4)] == [1.0] * 4


def test_hold_to_the_very_end_stays_at_one() -> None:
    assert {lr_factor(step, total=20, hold_until=20, final=0.01) for step in range(20)} == {1.0}


def test_a_hold_inside_the_warm_up_changes_nothing() -> None:
    assert [lr_factor(s, 50, warm_up=20, hold_until=5) for s in range(50)] == [
        lr_factor(s, 50, warm_up=20) for s in range(50)
    ]


@given(
    total=st.integers(1, 300),
    warm_up=st.floats(0, 400),
    hold_until=st.floats(0, 400),
    final=st.floats(0, 1),
    name=st.sampled_from(["constant", "linear", "cosine"]),
)
def test_never_zero_at_first_never_above_one(
    total: int, warm_up: float, hold_until: float, final: float, name: str
) -> None:
    factor = [lr_factor(step, total, warm_up, hold_until, final, name) for step in range(total + 2)]  # type: ignore[arg-type]
    assert all(0.0 <= value <= 1.0 for value in factor)
    if total > 1:
        assert factor[0] > 0.0
    assert factor[-1] == pytest.approx(factor[total - 1], abs=1e-12) or warm_up > total - 1, (
        "past the end nothing moves"
    )


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="starts at 0"):
        lr_factor(0, 10, shape="triangular")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="counted from 0"):
        lr_factor(-1, 10)
