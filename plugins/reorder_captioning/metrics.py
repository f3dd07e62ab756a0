"""CIDEr, BLEU, ROUGE-L and exact matches over a split; what was said is gathered from all processes first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from reorder_captioning.bleu import bleu
from reorder_captioning.cider import cider
from reorder_captioning.rouge import rouge_l
from reorder_core import Batch, TaskResult

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def words(text: str) -> list[str]:
    """Lower case, punctuation gone, words with an apostrophe or a hyphen whole: what all metrics compare.

    COCO's evaluation calls Stanford's PTB tokeniser (Java) here, which cuts `man's` into two words.
    """
    return _WORD.findall(text.lower())


def exact_match(said: Sequence[str], references: Sequence[Sequence[str]]) -> bool:
    """Whether these are the words of one of the references, in their order."""
    return any(list(said) == list(each) for each in references)


def scores(said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """All metrics of a corpus of texts: what was said of each image, and its references."""
    pairs = [(words(text), [words(each) for each in texts]) for text, texts in zip(said, references, strict=True)]
    count = max(1, len(pairs))
    each_bleu = {f"bleu{n}": value for n, value in enumerate(bleu(pairs), start=1)}
    return {
        "cider": sum(cider(pairs)) / count,
        **each_bleu,
        "rouge_l": sum(rouge_l(*pair) for pair in pairs) / count,
        "exact_match": sum(exact_match(*pair) for pair in pairs) / count,
    }


class CaptionMetrics:
    """See `scores`; with `loss`, the mean of the images' losses."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, tuple[str, ...], float]] = []

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Have the captions of a batch said, and keep them with their references."""
        losses = result.loss_B.detach().float().tolist()
        self._rows += zip(result.prediction.texts, map(tuple, batch.target), losses, strict=True)

    def compute(self) -> Mapping[str, float]:
        """Over all processes: cider (0 to 10), bleu1 … bleu4, rouge_l, exact_match (0 to 1), loss."""
        rows = self._rows
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            from accelerate.utils import gather_object

            rows = gather_object(rows)
        said, references, losses = ([row[part] for row in rows] for part in range(3))
        return {**scores(said, references), "loss": sum(losses) / max(1, len(losses))}  # type: ignore[arg-type]

    def reset(self) -> None:
        """Forget every batch."""
        self._rows = []
