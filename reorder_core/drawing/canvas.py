"""A sheet of characters that a path is drawn on, each remembering the slot that it belongs to (for its colour)."""

from __future__ import annotations

from typing import NamedTuple

# 256-colour codes from the first slot to the last: violet, blue, green, yellow, as viridis.
_COLOURS = (54, 55, 61, 62, 67, 31, 37, 36, 72, 71, 77, 113, 149, 148, 184, 220)

RIGHT, LEFT, DOWN, UP = (0, 1), (0, -1), (1, 0), (-1, 0)


class Ink(NamedTuple):
    """The characters of a drawing. joints: by the two sides that a patch is linked to; tips: where a jump begins."""

    joints: dict[frozenset[tuple[int, int]], str]
    tips: dict[tuple[int, int], str]
    first: str
    last: str
    alone: str
    across: str
    upright: str
    rising: str
    falling: str
    crossing: str
    shades: str


_PAIRS = (
    (RIGHT, LEFT),
    (UP, DOWN),
    (RIGHT, DOWN),
    (LEFT, DOWN),
    (RIGHT, UP),
    (LEFT, UP),
    (RIGHT,),
    (LEFT,),
    (DOWN,),
    (UP,),
)


def _ink(joints: str, tips: str, rest: str, shades: str) -> Ink:
    named = {frozenset(pair): mark for pair, mark in zip(_PAIRS, joints, strict=True)}
    first, last, alone, across, upright, rising, falling, crossing = list(rest)
    return Ink(
        named,
        dict(zip((RIGHT, LEFT, DOWN, UP), tips, strict=True)),
        first,
        last,
        alone,
        across,
        upright,
        rising,
        falling,
        crossing,
        shades,
    )


BOX = _ink("─│╭╮╰╯╶╴╷╵", "▸◂▾▴", "●■·─│╱╲╳", "·░▒▓█")
ASCII = _ink("-|++++--||", "><v^", "SE.-|/\\X", ".:-=+*#%@")


class Canvas:
    """`height` × `width` characters, blank at first."""

    def __init__(self, height: int, width: int, slots: int) -> None:
        self.marks = [[" "] * width for _ in range(height)]
        self.slot_of: dict[tuple[int, int], int] = {}
        self.slots = slots

    def put(self, row: int, column: int, mark: str, slot: int) -> None:
        """Write `mark`, several characters to the right, for a slot."""
        for offset, character in enumerate(mark):
            self.marks[row][column + offset] = character
            self.slot_of[row, column + offset] = slot

    def text(self, colour: bool) -> str:
        """The sheet as lines without blanks at their ends, coloured by slot if wanted."""
        if not colour:
            return "\n".join("".join(line).rstrip() for line in self.marks)
        return "\n".join(self._coloured(row) for row in range(len(self.marks)))

    def _coloured(self, row: int) -> str:
        out, present = "", None
        for column, mark in enumerate("".join(self.marks[row]).rstrip()):
            slot = self.slot_of.get((row, column))
            code = present if slot is None else _COLOURS[slot * len(_COLOURS) // self.slots]
            if code != present:
                out, present = f"{out}\x1b[38;5;{code}m", code
            out += mark
        return out + ("\x1b[0m" if present is not None else "")
