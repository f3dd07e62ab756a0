"""What the two JSON files of a VQA v2 split say (Goyal et al. 2017); read once in a process. Needs no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reorder_annotated_data.pipeline_settings import SplitName
from reorder_annotated_data.settings import VqaSettings
from reorder_annotated_data.text_files import read_json, records, stamp, value
from reorder_core import UsageError
from reorder_core.interfaces.targets import Question


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the number of its image."""

    image: int
    question: Question


def vqa_file(settings: VqaSettings, split: SplitName) -> tuple[Asked, ...]:
    """The questions of a split with their answers, in the order of the questions' file.

    Raises `UsageError` for whatever is wrong in the files: a question without words, answers or annotation.
    """
    questions, annotations = settings.path(split, "questions"), settings.path(split, "annotations")
    stamps = stamp(f"{split}_questions", questions), stamp(f"{split}_annotations", annotations)
    return _read(split, questions, annotations, stamps, settings.kind)


@lru_cache(maxsize=4)
def _read(split: str, questions: Path, annotations: Path, _stamps: Any, kind: str) -> tuple[Asked, ...]:
    held = read_json(f"{split}_annotations", annotations)
    answered: dict[int, dict[str, Any]] = {}
    for record in records(held, "annotations", annotations):
        number = value(record, "question_id", int, f"{annotations}: an annotation")
        if number in answered:
            raise UsageError(f"{annotations}: question {number}: is answered by two annotations: remove one")
        answered[number] = record
    asked = []
    for record in records(read_json(f"{split}_questions", questions), "questions", questions):
        number = value(record, "question_id", int, f"{questions}: a question")
        where = f"{questions}: question {number}"
        if number not in answered:
            raise UsageError(f"{where}: has no annotation in {annotations}, or is listed twice: correct one of them")
        asked.append(_asked(record, where, answered.pop(number), f"{annotations}: question {number}", kind))
    if answered:
        raise UsageError(
            f"{annotations}: question {next(iter(answered))}: is answered, but {questions} does not ask it: correct "
            f"one of them"
        )
    if not asked:
        raise UsageError(f"{questions}: asks nothing")
    return tuple(asked)


def _asked(record: dict[str, Any], where: str, answer: dict[str, Any], answer_where: str, kind: str) -> Asked:
    image = value(record, "image_id", int, where)
    text = " ".join(value(record, "question", str, where).split())
    if not any(letter.isalnum() for letter in text):
        raise UsageError(f"{where}: the question has no words: write some")
    if value(answer, "image_id", int, answer_where) != image:
        raise UsageError(
            f"{answer_where}: is about image {answer['image_id']}, and is asked about {image}: correct one"
        )
    given = [
        " ".join(value(each, "answer", str, f"{answer_where}: an answer").split())
        for each in records(answer, "answers", Path(answer_where))
    ]
    answers = sorted_by_frequency([each for each in given if each])
    if not answers:
        raise UsageError(f"{answer_where}: has no answer: write one, or take the question out of both files")
    return Asked(image, Question(text, answers, value(answer, kind, str, answer_where), str(record["question_id"])))


def sorted_by_frequency(given: list[str]) -> tuple[str, ...]:
    """The same answers, equal ones together, the most frequent first; as frequent ones as they came.

    Repetitions stay: VQA's accuracy counts how many people said the same (Antol et al. 2015, section 3).
    """
    count = Counter(given)
    first = {answer: place for place, answer in reversed(list(enumerate(given)))}
    return tuple(sorted(given, key=lambda answer: (-count[answer], first[answer])))
