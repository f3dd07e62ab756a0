"""BLEU-1 … 4 of a corpus (Papineni et al. 2002), as the COCO caption evaluation counts it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

Words = Sequence[str]
ORDERS = 4

# The reference adds these, so that a corpus without a match is no division by zero and no logarithm of it.
_TINY, _SMALL = 1e-15, 1e-9


def n_grams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n words occurs."""
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def bleu(pairs: Iterable[tuple[Words, Sequence[Words]]]) -> tuple[float, ...]:
    """(BLEU-1, …, BLEU-4) of (what was said, its references) pairs, each from 0 to 1.

    Counts are clipped by the reference with most of an n-gram and added up over the corpus before they are divided
    (section 2.1); the geometric mean of the precisions up to n is cut by the brevity penalty exp(1 - r/c) (section
    2.2.2), r from the reference closest in length, the shorter of two. Equal to pycocoevalcap's.
    """
    correct, guessed = [0] * ORDERS, [0] * ORDERS
    said_length = reference_length = 0
    for said, references in pairs:
        said_length += len(said)
        reference_length += min((abs(len(each) - len(said)), len(each)) for each in references)[1]
        for n in range(1, ORDERS + 1):
            most: Counter[tuple[str, ...]] = Counter()
            for each in references:
                most |= n_grams(each, n)
            correct[n - 1] += (n_grams(said, n) & most).total()
            guessed[n - 1] += max(0, len(said) - n + 1)
    ratio = (said_length + _TINY) / (reference_length + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    found, product = [], 1.0
    for n in range(ORDERS):
        product *= (correct[n] + _TINY) / (guessed[n] + _SMALL)
        found.append(brevity * product ** (1 / (n + 1)))
    return tuple(found)
