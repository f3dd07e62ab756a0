"""Questions about a scene with short answers, each with one true answer that can be read off its boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest

from reorder_core.interfaces.targets import Question
from reorder_digits.scenes_facts import Scene

#: Random numbers that a scene takes to choose among all that can be asked: there are never more possibilities.
DRAWS = 64

# The axis, and whether the answer comes before the digit that is asked about.
_SIDES = {"left": (0, True), "right": (0, False), "above": (1, True), "below": (1, False)}

# Ways to ask, the plain one first.
_TEXTS = {
    "count": ("how many digits are there?", "how many digits can you see?"),
    "exist": ("is there {a} {name}?", "can you see {a} {name}?"),
    "left": ("what is left of the {name}?", "which digit is to the left of the {name}?"),
    "right": ("what is right of the {name}?", "which digit is to the right of the {name}?"),
    "above": ("what is above the {name}?", "which digit is above the {name}?"),
    "below": ("what is below the {name}?", "which digit is below the {name}?"),
    "where": ("where is the {name}?", "where do you see the {name}?"),
    "largest": ("which digit is drawn largest?", "what is the tallest digit?"),
    "smallest": ("which digit is drawn smallest?", "what is the shortest digit?"),
    "sum": ("what do the digits add up to?", "what is the sum of the digits?"),
}

# Kinds that few scenes allow are asked more eagerly where they are possible, so that all come about equally often.
_EAGER = {
    "exist": 0.5,
    "where": 0.5,
    "left": 3.0,
    "right": 3.0,
    "above": 4.0,
    "below": 4.0,
    "largest": 2.0,
    "smallest": 2.0,
}

# Their answers tell how many digits there are: they are asked of every scene with the same probability, or else scenes
# with one digit, about which little can be asked, would make "1" the answer to most.
_EVEN = ("count", "sum")


@dataclass(frozen=True, slots=True)
class Possible:
    """Something that can be asked. weight: how eagerly. about: the digit that the text names; None where none."""

    kind: str
    weight: float
    about: int | None
    answer: str


def possible(scene: Scene, kinds: Sequence[str]) -> list[Possible]:
    """All that can be asked about a scene."""
    asked = {kind: found for kind in kinds if (found := list(_answers(scene, kind)))}
    weights = {kind: _EAGER.get(kind, 1.0) for kind in asked if kind not in _EVEN}
    scale = sum(kind not in _EVEN for kind in kinds) / max(sum(weights.values()), 1e-9)
    return [
        Possible(kind, share * (weights[kind] * scale if kind in weights else 1.0), about, answer)
        for kind, found in asked.items()
        for share, about, answer in found
    ]


def questions(
    scene: Scene,
    count: int,
    kinds: Sequence[str],
    uniforms: Sequence[float],
    wording: Sequence[float] | None,
    name: str,
) -> list[Question]:
    """`count` different questions, fewer only where no more can be asked.

    uniforms: `DRAWS` numbers in [0, 1). wording: one number in [0, 1) a question; None: plain. Drawn by weight without
    replacement (Efraimidis and Spirakis, Information Processing Letters 97, 2006: algorithm A).
    """
    found = possible(scene, kinds)
    chosen = nlargest(count, range(len(found)), key=lambda at: uniforms[at] ** (1.0 / found[at].weight))
    made = []
    for number, at in enumerate(chosen):
        one = found[at]
        ways = _TEXTS[one.kind]
        text = ways[0 if wording is None else int(wording[number] * len(ways))]
        text = text.format(a="an" if one.about == 8 else "a", name=one.about)
        made.append(Question(text, (one.answer,), one.kind, name))
    return made


def _answers(scene: Scene, kind: str) -> Iterator[tuple[float, int | None, str]]:
    """All that can be asked of one kind: (its share of the kind, the digit asked about, answer)."""
    if kind in ("count", "sum"):
        yield 1.0, None, str(len(scene) if kind == "count" else sum(scene.label_O))
    elif kind == "exist":
        # Yes and no are equally likely, though far more digits are absent than present.
        present = set(scene.label_O)
        for digit in range(10):
            if digit in present:
                yield 0.5 / len(present), digit, "yes"
            else:
                yield 0.5 / (10 - len(present)), digit, "no"
    elif kind in ("largest", "smallest"):
        extreme = scene.largest() if kind == "largest" else scene.smallest()
        if extreme is not None:
            yield 1.0, None, str(scene.label_O[extreme])
    else:
        named = [(one, _told(scene, kind, one)) for one in range(len(scene)) if scene.single(one)]
        known = [(one, answer) for one, answer in named if answer is not None]
        for one, answer in known:
            yield 1.0 / len(known), scene.label_O[one], answer


def _told(scene: Scene, kind: str, one: int) -> str | None:
    """Where the digit is, or what is on that side of it; None where there is no answer, or no single one."""
    if kind == "where":
        return scene.place(one)
    answer = _beside(scene, one, *_SIDES[kind])
    return None if answer is None else str(scene.label_O[answer])


def _beside(scene: Scene, one: int, axis: int, comes_before: bool) -> int | None:
    """The only digit on that side of this one; None where there is none, or where one stands half on that side."""
    found = None
    for other in range(len(scene)):
        if other == one:
            continue
        if scene.before(other, one, axis) if comes_before else scene.before(one, other, axis):
            if found is not None:
                return None
            found = other
            continue
        apart = scene.centre(other, axis) - scene.centre(one, axis)
        if apart <= 0 if comes_before else apart >= 0:
            return None
    return found
