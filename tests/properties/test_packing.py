"""Packed codes decode back, in as many bytes as they must take; what is no packing is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_prior.packing import MOST_CODES, pack, pack_rows, packed_length, symbol_width, unpack

from reorder_core import UsageError

codebooks = st.one_of(
    st.integers(1, 300), st.sampled_from([256, 257, 1024, 8192, 16384, 65536, 65537, 1 << 24, MOST_CODES])
)


@st.composite
def coded(draw, most: int = 40):
    codes = draw(codebooks)
    code = st.one_of(st.integers(0, codes - 1), st.sampled_from([0, codes - 1]))
    return np.array(draw(st.lists(code, max_size=most)), dtype=np.int64), codes


@given(coded(), st.sampled_from([1, 2]))
@settings(max_examples=300, deadline=None)
def test_codes_decode_back(given_codes, ngram):
    codes_N, codes = given_codes
    payload = pack(codes_N, codes, ngram)
    assert len(payload) == packed_length(len(codes_N), codes, ngram)
    back_N = unpack(payload, len(codes_N), codes, ngram)
    assert back_N.dtype == np.int64
    np.testing.assert_array_equal(back_N, codes_N)


@given(coded(), st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_rows_are_packed_as_each_alone(given_codes, ngram):
    codes_N, codes = given_codes
    codes_BN = np.stack([codes_N, codes_N[::-1]])
    rows = pack_rows(codes_BN, codes, ngram)
    assert rows.dtype == np.uint8
    assert [row.tobytes() for row in rows] == [pack(row, codes, ngram) for row in codes_BN]


@given(codebooks, st.sampled_from([1, 2]))
def test_a_symbol_has_the_fewest_whole_bytes(codes, ngram):
    width = symbol_width(codes, ngram)
    assert codes**ngram <= 256**width
    assert width == 1 or codes**ngram > 256 ** (width - 1)


def test_bytes_by_hand():
    """Little endian; a bigram is code_i · K + code_{i+1}, sliding by one."""
    assert pack(np.array([3, 0, 255]), 256, 1) == bytes([3, 0, 255])
    assert pack(np.array([3, 0, 258]), 300, 1) == bytes([3, 0, 0, 0, 2, 1])
    assert pack(np.array([3, 0, 2, 1]), 4, 2) == bytes([12, 2, 9])
    assert pack(np.array([3, 0, 2]), 64, 2) == bytes([192, 0, 2, 0])
    assert pack(np.array([7]), 64, 2) == bytes([7, 0])
    assert pack(np.array([], dtype=np.int64), 64, 2) == b""


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, np.int64])
def test_any_whole_numbers_are_packed_alike(dtype):
    assert pack(np.array([1, 200], dtype=dtype), 256, 2) == pack(np.array([1, 200]), 256, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pack(np.array([0, 64]), 64, 1), "code 64 is none of the tokenizer's 64"),
        (lambda: pack(np.array([-1, 3]), 64, 2), "code -1"),
        (lambda: pack(np.array([0]), 64, 3), "ngram must be 1 or 2"),
        (lambda: pack(np.array([0]), MOST_CODES + 1, 1), "cannot be packed"),
        (lambda: unpack(b"abc", 2, 64, 1), "2 packed codes are 2 bytes, not 3"),
        (lambda: unpack(bytes([200]), 1, 64, 1), "outside 0 to 63"),
        (lambda: unpack(bytes([1, 0, 0, 0]), 3, 64, 2), "disagree"),
        (lambda: unpack(bytes([255, 255]), 2, 4 * 16, 2), "outside 0 to 63"),
    ],
)
def test_what_is_no_packing_is_refused(call, said):
    with pytest.raises(UsageError, match=said):
        call()
