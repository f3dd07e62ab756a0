"""ROUGE-L of a caption (Lin 2004), as the COCO caption evaluation counts it."""

from __future__ import annotations

from collections.abc import Sequence

Words = Sequence[str]
BETA = 1.2


def common_length(one: Words, other: Words) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, against in enumerate(other, start=1):
            before, row[place] = row[place], before + 1 if word == against else max(row[place], row[place - 1])
    return row[-1]


def rouge_l(said: Words, references: Sequence[Words]) -> float:
    """F-measure of the longest common subsequence, from 0 to 1, recall weighted by beta = 1.2 (equations 2 to 4).

    Of several references, precision and recall are each the best one's (section 2.2 of the paper takes the best of
    both together; COCO's code does this). Equal to pycocoevalcap's.
    """
    common = [common_length(each, said) for each in references]
    if max(common, default=0) == 0:
        return 0.0
    precision = max(common) / len(said)
    recall = max(length / max(1, len(each)) for length, each in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
