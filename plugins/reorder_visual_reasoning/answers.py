"""The answers that can be given, and how right an answer is.

B questions, K answers that can be given, and one more that stands for all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from reorder_core.interfaces.targets import Question

_PEOPLE, _ENOUGH = 10, 3


def credit(answer: str, given: Sequence[str]) -> float:
    """How right an answer is, from 0 to 1.

    Where ten people or more answered: min(n / 3, 1) of the n who said so (VQA accuracy; Antol et al. 2015, arXiv
    1505.00468, section 4). Where fewer did: 1 for their most frequent answer, which stands first, else 0.
    """
    if len(given) >= _PEOPLE:
        return min(sum(one == answer for one in given) / _ENOUGH, 1.0)
    return float(bool(given) and answer == given[0])


def plain(answer: str) -> str:
    """An answer without its case and the space around it."""
    return " ".join(answer.lower().split())


class Answers:
    """The most frequent answers of some questions, the most frequent first; equally frequent ones by the alphabet."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = tuple(known)
        self._number = {answer: number for number, answer in enumerate(self.known)}

    @classmethod
    def of(cls, questions: Iterable[Question], most: int) -> Answers:
        """Each question counts with the answer that most people gave."""
        count = Counter(plain(question.answers[0]) for question in questions if question.answers)
        ranked = sorted(count, key=lambda answer: (-count[answer], answer))
        return cls(ranked[:most])

    def __len__(self) -> int:
        return len(self.known)

    def right_BK(self, questions: Sequence[Question]) -> Tensor:
        """How right each answer that can be given is, float32 [B, K]."""
        right_BK = torch.zeros(len(questions), len(self))
        for b, question in enumerate(questions):
            given = [plain(answer) for answer in question.answers]
            for answer in {*given}:
                if (k := self._number.get(answer)) is not None:
                    right_BK[b, k] = credit(answer, given)
        return right_BK

    def class_B(self, questions: Sequence[Question]) -> Tensor:
        """The number of the most frequent answer, int64 [B]; K where it cannot be given."""
        numbers = [
            self._number.get(plain(one.answers[0]), len(self)) if one.answers else len(self) for one in questions
        ]
        return torch.tensor(numbers, dtype=torch.int64)
