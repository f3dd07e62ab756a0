"""How a sequence is cut into segments. Free of torch: the settings ask it too.

L tokens of a sequence, T of a segment, M of the memory, S segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Segment = Annotated[int, Field(ge=1)] | Literal["auto"]

_AUTO_SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class Segments:
    """`count` segments of `size` tokens, the last one perhaps shorter; each sees up to `memory` tokens before it."""

    length: int
    size: int
    memory: int

    @property
    def count(self) -> int:
        """S"""
        return -(-self.length // self.size)

    @property
    def keys(self) -> int:
        """K = M + T: the tokens that a segment's queries look at, at most."""
        return self.memory + self.size

    @property
    def padding(self) -> int:
        """How many tokens the last segment is short of."""
        return self.count * self.size - self.length


def cut(length: int, segment: int | str, memory: int, faithful: bool = False) -> Segments:
    """Segments of a sequence. The memory is cut down to what the last segment can see; 0 where `faithful`.

    `auto` is a quarter of the sequence, rounded up, so that memory is carried three times, and longer where the last
    token would stand alone; where `faithful`, it is the whole sequence. `why_no_cut` says whether a segment fits.
    """
    auto = length if faithful else -(-length // _AUTO_SEGMENTS)
    while stands_alone(length, auto):
        auto += 1
    size = auto if segment == "auto" else int(segment)
    before_last = (-(-length // size) - 1) * size
    return Segments(length, size, 0 if faithful else min(memory, before_last))


def stands_alone(length: int, segment: int) -> bool:
    """Whether the last token has a segment to itself: nothing that is read there gets a gradient to another token."""
    return (length > segment and length % segment == 1) or (segment == 1 and length > 1)


def why_no_cut(length: int, segment: int | str, special: int = 0) -> str:
    """Why a sequence of `length` tokens, `special` of them no patches, has no such segment; empty where it has."""
    if segment == "auto" or int(segment) <= length:
        return ""
    and_special = f" and {special} class token" if special else ""
    return (
        f"a segment of {segment} tokens does not fit into a sequence of {length} "
        f"({length - special} patches{and_special}): choose at most {length}, or auto"
    )
