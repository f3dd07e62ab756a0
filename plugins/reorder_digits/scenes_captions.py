"""Five captions of a scene, each true, from templates: what, how many and where.

The first wording of each template is the plain one; `varied` wording draws among them, and between 3 and three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from reorder_digits.scenes_facts import NAMES, Scene

T = TypeVar("T")

#: Random numbers that one caption takes.
DRAWS = 4
TEMPLATES = 5


class Wording:
    """The choices of one caption: from uniform random numbers, or always the first (`plain`)."""

    def __init__(self, uniforms: Sequence[float] | None) -> None:
        self._left = list(uniforms or ())
        self._spelled = self.one_of((False, True))

    def one_of(self, ways: Sequence[T]) -> T:
        """One of them, the first where the wording is plain."""
        return ways[int(self._left.pop() * len(ways))] if self._left else ways[0]

    def name(self, digit: int) -> str:
        """3 or three."""
        return NAMES[digit] if self._spelled else str(digit)

    def a(self, digit: int) -> str:
        """a 3, an 8."""
        return f"{'an' if digit == 8 else 'a'} {self.name(digit)}"

    def some(self, count: int, digit: int) -> str:
        """a 3, two 7s, two sixes."""
        if count == 1:
            return self.a(digit)
        return f"{NAMES[count]} {self.name(digit)}{'es' if self._spelled and digit == 6 else 's'}"


def captions(scene: Scene, count: int, uniforms: Sequence[Sequence[float]] | None) -> tuple[str, ...]:
    """The first `count` of the five. uniforms: `DRAWS` numbers in [0, 1) for each; None: plain wording."""
    return tuple(
        template(scene, Wording(None if uniforms is None else uniforms[number]))
        for number, template in enumerate(_TEMPLATES[:count])
    )


def at(place: str) -> str:
    """at the top left, on the right, in the middle."""
    return f"{'in' if place == 'middle' else 'on' if place in ('left', 'right') else 'at'} the {place}"


def listed(parts: Sequence[str]) -> str:
    """a, b and c"""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _digits(scene: Scene) -> str:
    return f"{NAMES[len(scene)]} digit{'s' if len(scene) > 1 else ''}"


def _are(scene: Scene) -> str:
    return "are" if len(scene) > 1 else "is"


def _where(scene: Scene, word: Wording) -> str:
    """two digits: a 3 at the top left and a 7 at the bottom right"""
    parts = listed([f"{word.a(scene.label_O[one])} {at(scene.place(one))}" for one in scene.reading_order()])
    how_many = _digits(scene)
    return word.one_of(
        (f"{how_many}: {parts}", f"there {_are(scene)} {how_many}: {parts}", f"{how_many} can be seen, {parts}")
    )


def _beside(scene: Scene, word: Wording) -> str:
    """a 3 above a 7"""
    if len(scene) == 1:
        alone = f"{word.a(scene.label_O[0])} {at(scene.place(0))}"
        return word.one_of((alone, f"nothing but {alone}", f"{alone} and no other digit"))
    order = scene.reading_order()
    pairs = [
        (one, other, axis)
        for axis in (1, 0)
        for number, one in enumerate(order)
        for other in order[:number] + order[number + 1 :]
        if scene.before(one, other, axis)
    ]
    if not pairs:
        return f"{word.a(scene.label_O[order[0]])} touching {word.a(scene.label_O[order[1]])}"
    one, other, axis = word.one_of(pairs)
    first, second = word.a(scene.label_O[one]), word.a(scene.label_O[other])
    forth, back = (("to the left of", "to the right of"), ("above", "below"))[axis]
    return word.one_of((f"{first} {forth} {second}", f"{second} {back} {first}"))


def _sizes(scene: Scene, word: Wording) -> str:
    """there are three digits, the largest is a 5"""
    start = word.one_of((f"there {_are(scene)} {_digits(scene)}", f"the picture shows {_digits(scene)}"))
    if len(scene) == 1:
        return f"{start}, {word.a(scene.label_O[0])}"
    largest, smallest = scene.largest(), scene.smallest()
    said = [
        f"the {size} is {word.a(scene.label_O[one])}"
        for size, one in (("largest", largest), ("smallest", smallest))
        if one is not None
    ]
    return f"{start}, {word.one_of(said) if said else 'none of them clearly the largest'}"


def _line(scene: Scene, word: Wording) -> str:
    """from left to right: 3, 5, 7"""
    if len(scene) == 1:
        return word.one_of(("the only digit is {}", "{} stands alone")).format(word.a(scene.label_O[0]))
    lines = []
    for axis, way in enumerate(("from left to right", "from top to bottom")):
        centres = [scene.centre(one, axis) for one in range(len(scene))]
        if len(set(centres)) == len(scene):
            order = sorted(range(len(scene)), key=centres.__getitem__)
            lines.append((way, [word.name(scene.label_O[one]) for one in order]))
    if not lines:
        return f"the digits {listed([word.name(label) for label in sorted(scene.label_O)])}"
    way, names = word.one_of(lines)
    return word.one_of((f"{way}: {', '.join(names)}", f"{way} one reads {listed(names)}"))


def _list(scene: Scene, word: Wording) -> str:
    """the picture shows a 3 and two 7s"""
    labels = sorted(set(scene.label_O))
    parts = listed([word.some(scene.label_O.count(label), label) for label in labels])
    return word.one_of((f"the picture shows {parts}", f"a picture of {parts}", f"{parts} on a dark canvas"))


_TEMPLATES: tuple[Callable[[Scene, Wording], str], ...] = (_where, _beside, _sizes, _line, _list)
