"""CIDEr of a corpus (Vedantam et al. 2015): CIDEr-D, as the COCO caption evaluation counts it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reorder_captioning.bleu import ORDERS, n_grams

Words = Sequence[str]
Gram = tuple[str, ...]
SIGMA = 6.0  # of the penalty for another length, in words


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A caption as vectors of weighed n-grams, one for each n, with their norms. bigrams: how many it has."""

    vectors: tuple[dict[Gram, float], ...]
    norms: tuple[float, ...]
    bigrams: int


def cider(pairs: Sequence[tuple[Words, Sequence[Words]]]) -> list[float]:
    """CIDEr-D of each (what was said, its references) pair, from 0 to 10; a corpus' CIDEr is the mean.

    For n = 1 … 4 the cosine of TF-IDF vectors (equations 1 and 2), counts clipped by the reference's, times a Gaussian
    of the difference in length with sigma 6 (CIDEr-D, section 5.1), meant over references and n, times 10. An n-gram
    weighs log(images / images with a reference that has it), so a pair's value depends on all pairs' references, and
    is 0 where there is one pair only. Length counts bigrams, as in the reference. Equal to pycocoevalcap's.
    """
    documents: Counter[Gram] = Counter()
    for _, references in pairs:
        documents.update({gram for each in references for n in range(ORDERS) for gram in n_grams(each, n + 1)})
    images = math.log(len(pairs)) if pairs else 0.0
    found = []
    for said, references in pairs:
        weighed = _weighed(said, documents, images)
        total = sum(_similarity(weighed, _weighed(each, documents, images)) for each in references)
        found.append(10.0 * total / ORDERS / len(references))
    return found


def _weighed(words: Words, documents: Counter[Gram], images: float) -> _Weighed:
    counts = [n_grams(words, n + 1) for n in range(ORDERS)]
    vectors = tuple(
        {gram: count * (images - math.log(max(1, documents[gram]))) for gram, count in each.items()} for each in counts
    )
    norms = tuple(math.sqrt(sum(weight**2 for weight in vector.values())) for vector in vectors)
    return _Weighed(vectors, norms, counts[1].total())


def _similarity(said: _Weighed, reference: _Weighed) -> float:
    """The sum over n of clipped cosines, with the penalty for another length."""
    total = 0.0
    for mine, theirs, norm, other in zip(said.vectors, reference.vectors, said.norms, reference.norms, strict=True):
        if norm and other:
            product = sum(min(weight, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, weight in mine.items())
            total += product / (norm * other)
    return total * math.exp(-((said.bigrams - reference.bigrams) ** 2) / (2 * SIGMA**2))
