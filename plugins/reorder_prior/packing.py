"""Codes as bytes for a compressor: one symbol a code (unigram), or one for each pair of neighbours (bigram).

Kutscher et al. (NeurIPS 2025, arXiv 2505.23751) compress the tokens of an image as unigrams and as bigrams. A symbol is
written as a whole number of bytes, the fewest that hold all symbols, the least significant first.

A bigram symbol is `code_i · K + code_{i+1}`, for every slot but the last: pairs *slide*, so that each code but those at
the ends is written twice. Disjoint pairs would be half as many, but they see every second neighbourhood only, and which
half depends on where the sequence begins; with up to 256 codes they would be no more than the unigram's bytes exchanged
two by two. Sliding pairs see each neighbourhood once, as a bigram statistic does, and decode: every symbol holds its
first code, the last one holds the last code too, and the codes that are written twice must agree.

B images, N slots, K codes, S symbols, W bytes a symbol.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reorder_core import UsageError

Ngram = Literal[1, 2]

MOST_CODES = 1 << 31
"""a pair of codes must fit 63 bits"""


def symbol_width(codes: int, ngram: Ngram) -> int:
    """W: the fewest whole bytes that hold each of K codes (ngram 1) or K² pairs (ngram 2)."""
    if ngram not in (1, 2):
        raise UsageError(f"codes are packed alone or in pairs, not by {ngram}: ngram must be 1 or 2")
    if not 1 <= codes <= MOST_CODES:
        raise UsageError(f"{codes} codes cannot be packed: a tokenizer needs 1 to {MOST_CODES} of them")
    return max(1, -(-(codes**ngram - 1).bit_length() // 8))


def packed_length(count: int, codes: int, ngram: Ngram) -> int:
    """Bytes of `count` packed codes, before any compression: W a symbol."""
    return _symbols(count, ngram) * symbol_width(codes, ngram)


def pack_rows(codes_BN: NDArray[np.integer], codes: int, ngram: Ngram) -> NDArray[np.uint8]:
    """The packed bytes of many images at once, uint8 [B, S·W]: `row.tobytes()` is what a compressor takes.

    codes_BN: in the order of the sequence, each 0 … K-1. codes: K. ngram: 1 or 2.
    Raises `UsageError` for a code outside 0 … K-1, and for another ngram.
    """
    width = symbol_width(codes, ngram)
    if codes_BN.size and (int(codes_BN.min()) < 0 or int(codes_BN.max()) >= codes):
        outside = codes_BN[(codes_BN < 0) | (codes_BN >= codes)].flat[0]
        raise UsageError(
            f"code {outside} is none of the tokenizer's {codes}, 0 to {codes - 1}: tokenize the images again"
        )
    symbol_BS = codes_BN.astype("<u8")
    if ngram == 2 and codes_BN.shape[1] > 1:
        symbol_BS = symbol_BS[:, :-1] * np.uint64(codes) + symbol_BS[:, 1:]
    bytes_BS8 = np.ascontiguousarray(symbol_BS.astype("<u8")).view(np.uint8).reshape(*symbol_BS.shape, 8)
    return bytes_BS8[:, :, :width].reshape(len(codes_BN), symbol_BS.shape[1] * width)


def pack(codes_N: NDArray[np.integer], codes: int, ngram: Ngram) -> bytes:
    """The packed bytes of one image's codes [N], in the order of the sequence; `unpack` gives the codes back.

    A single code has no neighbour: as a bigram it is written alone, in the width of a pair.
    Raises `UsageError` for a code outside 0 … K-1, and for another ngram than 1 and 2.
    """
    return pack_rows(codes_N[None], codes, ngram).tobytes()


def unpack(payload: bytes, count: int, codes: int, ngram: Ngram) -> NDArray[np.int64]:
    """The codes, int64 [N], that `pack` made the payload from. count: N.

    Raises `UsageError` where the payload is no packing of N such codes: another length, a code outside 0 … K-1, or
    pairs that do not agree on the code that they share.
    """
    width = symbol_width(codes, ngram)
    if len(payload) != packed_length(count, codes, ngram):
        raise UsageError(
            f"{count} packed codes are {packed_length(count, codes, ngram)} bytes, not {len(payload)}: "
            f"give the number of codes, the codebook and the ngram that they were packed with"
        )
    bytes_S8 = np.zeros((_symbols(count, ngram), 8), dtype=np.uint8)
    bytes_S8[:, :width] = np.frombuffer(payload, dtype=np.uint8).reshape(-1, width)
    symbol_S = bytes_S8.view("<u8")[:, 0].astype(np.int64)
    if ngram == 2 and count > 1:
        first_S, second_S = np.divmod(symbol_S, codes)
        if (first_S[1:] != second_S[:-1]).any():
            raise UsageError("pairs of codes disagree on the code that they share: the payload is damaged")
        symbol_S = np.append(first_S, second_S[-1])
    if (symbol_S < 0).any() or (symbol_S >= codes).any():
        raise UsageError(f"the payload holds codes outside 0 to {codes - 1}: it was packed with another codebook")
    return symbol_S


def _symbols(count: int, ngram: Ngram) -> int:
    """S, how many symbols stand for `count` codes."""
    return count - 1 if ngram == 2 and count > 1 else count
