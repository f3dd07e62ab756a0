"""BLEU, ROUGE-L and CIDEr against pycocoevalcap, the COCO caption evaluation, on made-up and random captions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from reorder_captioning.bleu import bleu
from reorder_captioning.cider import cider
from reorder_captioning.rouge import rouge_l

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    Bleu = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu
    Cider = pytest.importorskip("pycocoevalcap.cider.cider").Cider
    Rouge = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge

Pairs = Sequence[tuple[list[str], list[list[str]]]]

BY_HAND = {
    "perfect": [("a 7 left of a 3", ["a 7 left of a 3"]), ("two digits on grey ground", ["two digits on grey ground"])],
    "nothing in common": [("x y z", ["a b c d"]), ("u v", ["e f g", "h i"])],
    "too short for 4-grams": [("a b", ["a b"]), ("c", ["c d"])],
    "repetition": [("the the the the the", ["the cat is on the mat", "there is a cat"]), ("a cat", ["a cat sat"])],
    "longer than all": [("a b c d e f g h", ["a b c", "a b c d"]), ("a b", ["a b"])],
    "closest length is the shorter": [("a b c", ["a b", "a b c d"]), ("d e", ["d e f"])],
    "one image": [("a b c d e", ["a b c d e", "a b x d e"])],
    "many references": [("a man rides a horse", ["a man rides a horse", "a man on a horse", "horse with a rider"])] * 3,
    "says nothing": [("", ["a b c"]), ("a b c d", ["a b c d"])],
}


def cut(pairs: Sequence[tuple[str, Sequence[str]]]) -> Pairs:
    return [(said.split(), [text.split() for text in references]) for said, references in pairs]


def random_pairs(seed: int) -> Pairs:
    draw = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(int(draw.integers(3, 30)))]

    def caption() -> list[str]:
        return [str(word) for word in draw.choice(words, size=draw.integers(1, 14))]

    def like(text: list[str]) -> list[str]:
        return [word if draw.random() < 0.7 else str(draw.choice(words)) for word in text][: draw.integers(1, 15)]

    references = [[caption() for _ in range(draw.integers(1, 6))] for _ in range(draw.integers(1, 20))]
    return [(like(texts[0]), texts) for texts in references]


def check(pairs: Pairs) -> None:
    said = {number: [" ".join(words)] for number, (words, _) in enumerate(pairs)}
    texts = {number: [" ".join(words) for words in references] for number, (_, references) in enumerate(pairs)}
    theirs_bleu, _ = Bleu(4).compute_score(texts, said, verbose=0)
    _, theirs_rouge = Rouge().compute_score(texts, said)
    _, theirs_cider = Cider().compute_score(texts, said)
    np.testing.assert_allclose(bleu(pairs), theirs_bleu, atol=1e-9, rtol=0)
    np.testing.assert_allclose([rouge_l(*pair) for pair in pairs], theirs_rouge, atol=1e-9, rtol=0)
    np.testing.assert_allclose(cider(pairs), theirs_cider, atol=1e-9, rtol=0)


@pytest.mark.parametrize("pairs", BY_HAND.values(), ids=BY_HAND.keys())
def test_by_hand(pairs: Sequence[tuple[str, Sequence[str]]]) -> None:
    check(cut(pairs))


@pytest.mark.parametrize("seed", range(30))
def test_random_captions(seed: int) -> None:
    check(random_pairs(seed))
