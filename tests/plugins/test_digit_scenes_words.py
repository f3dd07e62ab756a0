"""Captions and questions of `digit_scenes`, taken apart again and held against the boxes of their scene."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from reorder_digits.scenes import DigitScenes
from reorder_digits.scenes_captions import Wording, captions
from reorder_digits.scenes_facts import Scene
from reorder_digits.scenes_questions import DRAWS, possible
from reorder_digits.settings import KINDS, DigitScenesSettings

from reorder_core import Context, Grid
from reorder_core.interfaces.targets import Question

SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOOKS: list[dict[str, Any]] = [
    {},
    {"difficulty": "hard"},
    {"digits": (2, 4), "overlap": 0.5, "size": 48, "side": (12, 24)},
    {"digits": (4, 8), "side": (8, 12), "size": 40},
]


def built(**given: Any) -> DigitScenes:
    return DigitScenes(DigitScenesSettings(**{"train": 300, "validation": 32, **given}), Context(Grid(8, 8), patch=8))


class Seen:
    """A scene as a reader of its boxes sees it, apart from the code that writes the texts."""

    def __init__(self, label: np.ndarray[Any, Any], box: np.ndarray[Any, Any], size: int) -> None:
        self.label, self.box, self.size = label, box, size
        self.middle = (box[:, :2] + box[:, 2:]) / 2
        self.height = box[:, 3] - box[:, 1]

    def place(self, one: int) -> str:
        across, down = np.minimum(self.middle[one] * 3 // self.size, 2).astype(int)
        words = [("top", "", "bottom")[down], ("left", "", "right")[across]]
        return " ".join(word for word in words if word) or "middle"

    def beside(self, way: str, one: Any, other: Any) -> bool:
        a, b = self.box[one], self.box[other]
        return bool({"left": a[2] <= b[0], "right": b[2] <= a[0], "above": a[3] <= b[1], "below": b[3] <= a[1]}[way])

    def extreme(self, word: str) -> list[int]:
        height = self.height if word == "largest" else -self.height
        return [one for one in range(len(height)) if (np.delete(height, one) <= height[one] - 2).all()]


def seen(data: DigitScenes) -> list[Seen]:
    made = data.train.made
    rows = zip(made.count_B, made.label_BO, made.box_BO4, strict=True)
    return [Seen(label[:count], box[:count], data.facts.width) for count, label, box in rows]


def number(word: str) -> int:
    return int(word) if word.isdigit() else SPELLED.index(word)


def items(listed: str) -> list[str]:
    return re.split(r", | and ", listed)


def article(text: str) -> int:
    """The digit of "an 8"."""
    found = re.fullmatch(r"(an?) (\w+)", text)
    assert found, text
    assert (found[1] == "an") == (number(found[2]) == 8), text
    return number(found[2])


def check_where(text: str, scene: Seen) -> None:
    found = re.fullmatch(r"(?:there (is|are) )?(\w+) (digits?)(?:: | can be seen, )(.+)", text)
    assert found, text
    assert number(found[2]) == len(scene.label)
    assert (found[3] == "digit") == (found[2] == "one") == (len(scene.label) == 1)
    assert found[1] is None or (found[1] == "is") == (len(scene.label) == 1)
    said: Counter[Any] = Counter()
    for item in items(found[4]):
        named, place = re.split(r" (?:at|on|in) the ", item)
        said[article(named), place] += 1
    assert said == Counter((int(label), scene.place(one)) for one, label in enumerate(scene.label)), text


def check_beside(text: str, scene: Seen) -> None:
    if len(scene.label) == 1:
        found = re.fullmatch(r"(?:nothing but )?(an? \w+) (?:at|on|in) the (.+?)(?: and no other digit)?", text)
        assert found, text
        assert (article(found[1]), found[2]) == (scene.label[0], scene.place(0))
        return
    found = re.fullmatch(r"(an? \w+) (above|below|to the left of|to the right of|touching) (an? \w+)", text)
    assert found, text
    way = found[2].removeprefix("to the ").removesuffix(" of")
    pairs = [
        (one, other)
        for one in np.flatnonzero(scene.label == article(found[1]))
        for other in np.flatnonzero(scene.label == article(found[3]))
        if one != other
    ]
    ways = ("left", "right", "above", "below")
    if way == "touching":
        assert any(not any(scene.beside(way, *pair) for way in ways) for pair in pairs), text
    else:
        assert any(scene.beside(way, *pair) for pair in pairs), text


def check_sizes(text: str, scene: Seen) -> None:
    found = re.fullmatch(r"(?:there (?:is|are)|the picture shows) (\w+) digits?, (.+)", text)
    assert found, text
    assert number(found[1]) == len(scene.label)
    if len(scene.label) == 1:
        assert article(found[2]) == scene.label[0]
    elif found[2] == "none of them clearly the largest":
        assert scene.extreme("largest") == []
    else:
        word, named = re.fullmatch(r"the (largest|smallest) is (an? \w+)", found[2]).groups()  # type: ignore[union-attr]
        assert scene.label[scene.extreme(word)].tolist() == [article(named)], text


def check_line(text: str, scene: Seen) -> None:
    if len(scene.label) == 1:
        found = re.fullmatch(r"the only digit is (an? \w+)|(an? \w+) stands alone", text)
        assert found, text
        assert article(found[1] or found[2]) == scene.label[0]
        return
    found = re.fullmatch(r"(from (?:left to right|top to bottom)|the digits)(?: one reads|:)? (.+)", text)
    assert found, text
    said = [number(word) for word in items(found[2])]
    axis = {"from left to right": 0, "from top to bottom": 1}.get(found[1])
    order = np.argsort(scene.label if axis is None else scene.middle[:, axis], kind="stable")
    assert said == scene.label[order].tolist(), text


def check_list(text: str, scene: Seen) -> None:
    found = re.fullmatch(r"(?:the picture shows |a picture of )?(.+?)(?: on a dark canvas)?", text)
    assert found, text
    said: Counter[Any] = Counter()
    for item in items(found[1]):
        if re.match(r"an? ", item):
            said[article(item)] += 1
        else:
            many, name = item.split()
            said[number("six" if name == "sixes" else name.removesuffix("s"))] += number(many)
            assert number(many) > 1
    assert said == Counter(scene.label.tolist()), text


CHECKS = (check_where, check_beside, check_sizes, check_line, check_list)


@pytest.mark.parametrize("wording", ["varied", "plain"])
@pytest.mark.parametrize("look", LOOKS)
def test_captions_are_true(look: dict[str, Any], wording: str) -> None:
    data = built(target="captions", wording=wording, **look)
    for texts, scene in zip(data.train.targets(), seen(data), strict=True):
        assert len(texts) == len(CHECKS)
        for check, text in zip(CHECKS, texts, strict=True):
            check(text, scene)


def test_wording_varies_from_scene_to_scene_and_plain_does_not() -> None:
    starts = {
        wording: {texts[4].split(" ")[0] for texts in built(target="captions", wording=wording).train.targets()}
        for wording in ("varied", "plain")
    }
    assert starts["plain"] == {"the"}
    assert len(starts["varied"]) >= 3
    spelled = [Wording((share, share)).name(3) for share in (0.2, 0.8)]
    assert spelled == ["3", "three"]


def test_plain_captions_of_a_scene_written_out() -> None:
    scene = Scene(60, (8, 6, 6), ((2, 4, 12, 20), (40, 4, 50, 24), (22, 42, 32, 60)))
    assert captions(scene, 5, None) == (
        "three digits: an 8 at the top left, a 6 at the top right and a 6 at the bottom",
        "an 8 above a 6",
        "there are three digits, the largest is a 6",
        "from left to right: 8, 6, 6",
        "the picture shows two 6s and an 8",
    )
    assert captions(scene, 2, None) == captions(scene, 5, None)[:2]


def answered(question: Question, scene: Seen) -> str:
    """The only answer that the boxes give; asserts that there is one."""
    word = re.search(r"\d", question.text)
    one = np.flatnonzero(scene.label == int(word[0])) if word else np.arange(0)
    if question.kind == "count":
        return str(len(scene.label))
    if question.kind == "sum":
        return str(scene.label.sum())
    if question.kind == "exist":
        return "yes" if len(one) else "no"
    if question.kind in ("largest", "smallest"):
        (found,) = scene.extreme(question.kind)
        return str(scene.label[found])
    assert len(one) == 1, question
    if question.kind == "where":
        return scene.place(one[0])
    beside = [other for other in range(len(scene.label)) if scene.beside(question.kind, other, one[0])]
    assert len(beside) == 1, question
    return str(scene.label[beside[0]])


@pytest.mark.parametrize("look", LOOKS)
def test_answers_are_true_and_the_only_ones(look: dict[str, Any]) -> None:
    data = built(target="questions", questions_per_scene=3, kinds=(*KINDS, "sum"), **look)
    scenes = seen(data)
    for place, question in enumerate(data.train.targets()):
        assert question.answers == (answered(question, scenes[place // 3]),), question
        assert question.text.endswith("?")
        assert (" an " in question.text) == ("an 8" in question.text)
        assert question.name == f"scene {place // 3}"


def test_kinds_and_answers_are_balanced() -> None:
    asked: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for question in built(target="questions", train=2000).train.targets():
        asked[question.kind][question.answers[0]] += 1
    for kind, answers in asked.items():
        assert answers.total() > 0.05 * 4000, kind
        wanted = {"exist": 0.55, "count": 0.3}.get(kind, 0.2)
        assert answers.most_common(1)[0][1] < wanted * answers.total(), (kind, answers)


def test_only_the_kinds_that_are_wanted() -> None:
    asked = {question.kind for question in built(target="questions", kinds=("exist", "left")).train.targets()}
    assert asked == {"exist", "left"}


def test_there_are_random_numbers_for_all_that_can_be_asked() -> None:
    """Eight different digits on a diagonal: nothing allows more questions."""
    boxes = tuple((8 * one, 8 * one, 8 * one + 4 + one % 3, 8 * one + 4) for one in range(8))
    assert len(possible(Scene(64, tuple(range(8)), boxes), (*KINDS, "sum"))) <= DRAWS
