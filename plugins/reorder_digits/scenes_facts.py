"""What can truthfully be said of one scene, read off its boxes: places, sides, sizes.

O digits of the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[int, int, int, int]

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")

#: By so many pixels the tallest (lowest) digit must differ from every other to be called the largest (smallest).
CLEARLY = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene of one canvas side: label_O, and box_O as left, top, right, bottom in pixels."""

    size: int
    label_O: tuple[int, ...]
    box_O: tuple[Box, ...]

    def __len__(self) -> int:
        return len(self.label_O)

    def thirds(self, one: int) -> tuple[int, int]:
        """(row, column), each 0, 1 or 2: the third of the canvas in which the box has its centre."""
        left, top, right, bottom = self.box_O[one]
        return 3 * (top + bottom) // (2 * self.size), 3 * (left + right) // (2 * self.size)

    def place(self, one: int) -> str:
        """top left, top, top right, left, middle …"""
        row, column = self.thirds(one)
        return f"{_ROWS[row]} {_COLUMNS[column]}".strip() or "middle"

    def before(self, one: int, other: int, axis: int) -> bool:
        """Whether the whole box lies left of (axis 0) or above (axis 1) the other."""
        return self.box_O[one][2 + axis] <= self.box_O[other][axis]

    def centre(self, one: int, axis: int) -> int:
        """Twice the centre of the box, so that it is whole: from the left (axis 0), from the top (axis 1)."""
        return self.box_O[one][axis] + self.box_O[one][2 + axis]

    def height(self, one: int) -> int:
        """Of the box; what large and small mean here."""
        return self.box_O[one][3] - self.box_O[one][1]

    def reading_order(self) -> list[int]:
        """By thirds from top to bottom, in each from left to right."""
        return sorted(range(len(self)), key=lambda one: (self.thirds(one)[0], self.centre(one, 0), one))

    def single(self, one: int) -> bool:
        """Whether no other digit of the scene has its label, so that "the 7" names it."""
        return self.label_O.count(self.label_O[one]) == 1

    def largest(self) -> int | None:
        """The digit that is clearly taller than every other; None where there is none, or no other."""
        by_height = sorted(range(len(self)), key=self.height)
        if len(self) < 2 or self.height(by_height[-1]) - self.height(by_height[-2]) < CLEARLY:
            return None
        return by_height[-1]

    def smallest(self) -> int | None:
        """The digit that is clearly lower than every other; None where there is none, or no other."""
        by_height = sorted(range(len(self)), key=self.height)
        if len(self) < 2 or self.height(by_height[1]) - self.height(by_height[0]) < CLEARLY:
            return None
        return by_height[0]
