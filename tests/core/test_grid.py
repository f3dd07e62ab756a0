"""What a side is made of."""

from __future__ import annotations

from math import prod

from hypothesis import given
from hypothesis import strategies as st

from reorder_core.grid import prime_factors


def test_prime_factors_by_hand():
    assert [prime_factors(number) for number in (1, 2, 7, 12, 14, 16)] == [[], [2], [7], [2, 2, 3], [2, 7], [2] * 4]


@given(st.integers(1, 5000))
def test_prime_factors_multiply_to_the_number(number):
    factors = prime_factors(number)
    assert prod(factors) == number
    assert factors == sorted(factors)
    assert all(len(prime_factors(factor)) == 1 for factor in factors)
