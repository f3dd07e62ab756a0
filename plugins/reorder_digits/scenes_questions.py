"""Questions about a scene with short answers, each with one true answer that can be read off its boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nlargest

from reorder_core.interfaces.targets import Question
from reorder_digits.scenes_facts import Scene

#: Random numbers that a scene takes to choose among all that can be asked: there are never more possibilities.
DRAWS = 64

# (kind, axis, whether the answer comes before the one asked about)
_SIDES = (("left", 0, True), ("right", 0, False), ("above", 1, True), ("below", 1, False))

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
_EAGER = {"left": 3.0, "right": 3.0, "above": 3.0, "below": 3.0, "largest": 2.0, "smallest": 2.0}

Possible = tuple[str, float, int | None, str]


def possible(scene: Scene, kinds: Sequence[str]) -> Iterator[Possible]:
    """All that can be asked: (kind, its share of the kind's weight, the digit asked about, answer)."""
    asked: dict[str, list[tuple[float, int | None, str]]] = {kind: [] for kind in kinds}
    present = set(scene.label_O)
    numbers = [one for one in range(len(scene)) if scene.single(one)]
    for kind in kinds:
        found = asked[kind]
        if kind == "count":
            found.append((1.0, None, str(len(scene))))
        elif kind == "sum":
            found.append((1.0, None, str(sum(scene.label_O))))
        elif kind == "exist":
            # Yes and no are equally likely, though far more digits are absent than present.
            found += [
                (0.5 / len(present), digit, "yes") if digit in present else (0.5 / (10 - len(present)), digit, "no")
                for digit in range(10)
            ]
        elif kind == "where":
            found += [(1 / len(numbers), scene.label_O[one], scene.place(one)) for one in numbers]
        elif kind in ("largest", "smallest"):
            one = scene.largest() if kind == "largest" else scene.smallest()
            found += [] if one is None else [(1.0, None, str(scene.label_O[one]))]
    for kind, axis, comes_before in _SIDES:
        if kind in asked:
            answers = [(one, _beside(scene, one, axis, comes_before)) for one in numbers]
            known = [(one, answer) for one, answer in answers if answer is not None]
            asked[kind] += [(1 / len(known), scene.label_O[one], str(scene.label_O[answer])) for one, answer in known]
    for kind, found in asked.items():
        for share, about, answer in found:
            yield kind, share * _EAGER.get(kind, 1.0), about, answer


def questions(
    scene: Scene,
    count: int,
    kinds: Sequence[str],
    uniforms: Sequence[float],
    wording: Sequence[float] | None,
    name: str,
) -> list[Question]:
    """`count` different questions, fewer only where no more can be asked.

    uniforms: `DRAWS` numbers in (0, 1]. wording: one number in [0, 1) a question; None: plain. Drawn by weight without
    replacement (Efraimidis and Spirakis, Information Processing Letters 97, 2006: algorithm A).
    """
    found = list(possible(scene, kinds))
    chosen = nlargest(count, range(len(found)), key=lambda at: uniforms[at] ** (1.0 / found[at][1]))
    made = []
    for number, at in enumerate(chosen):
        kind, _, about, answer = found[at]
        ways = _TEXTS[kind]
        text = ways[0 if wording is None else int(wording[number] * len(ways))]
        text = text.format(a="an" if about == 8 else "a", name=about)
        made.append(Question(text, (answer,), kind, name))
    return made


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
