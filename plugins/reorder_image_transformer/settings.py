"""Settings of the Image Transformer: what a block is, and how far its memory reaches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Grid, Problem, RunFacts, SequenceSettings, Settings, head_problems

Positive = Annotated[int, Field(ge=1)]
Reach = Annotated[int, Field(ge=0)]
Pair = tuple[int, int]

_QUERY: dict[bool, Pair] = {False: (1, 32), True: (4, 4)}
_MEMORY: dict[bool, Pair] = {False: (0, 32), True: (2, 2)}


class ImageTransformerMixerSettings(Settings):
    """Self-attention inside local neighbourhoods (Parmar et al. 2018, section 3.3)."""

    heads: Positive = 3
    """attention heads; the width must divide by it"""
    blocks: Literal["sequence", "grid", "places"] = "sequence"
    """what is cut into blocks: sequence: runs of slots; grid: rectangles, the slots laid out row by row as the
    grid's rows and columns; places: rectangles of the picture itself, wherever their patches stand in the sequence"""
    query: Positive | tuple[Positive, Positive] | None = None
    """size of a query block: slots (sequence; left out: 32), or [rows, columns] (grid, places; left out: [4, 4])"""
    memory: Reach | tuple[Reach, Reach] | None = None
    """how far memory reaches beyond its query block: slots (left out: 32), or [rows, columns] (left out: [2, 2]);
    to both sides, and in a causal model not to what comes after (sequence) or lies below (grid, places)"""
    causal: bool = False
    """whether a slot sees itself and earlier slots only, as for generation"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from head_problems(self.heads, facts.width)
        if misfit := self.misfit(facts.grid):
            yield misfit

    @property
    def two_dimensional(self) -> bool:
        """Whether blocks are rectangles."""
        return self.blocks != "sequence"

    @property
    def query_shape(self) -> Pair:
        """(rows, columns) of a query block; a run of slots is one row."""
        return _as_pair(self.query, _QUERY[self.two_dimensional], 1)

    @property
    def memory_reach(self) -> Pair:
        """(rows, columns) by which memory reaches beyond its query block."""
        return _as_pair(self.memory, _MEMORY[self.two_dimensional], 0)

    def misfit(self, grid: Grid) -> Problem | None:
        """The first reason why these blocks do not fit a grid."""
        for key, value in (("query", self.query), ("memory", self.memory)):
            if value is not None and isinstance(value, tuple) != self.two_dimensional:
                right = "[rows, columns]" if self.two_dimensional else "a number of slots"
                return Problem(key, f"blocks '{self.blocks}' want {right} here, not {_written(value)}")
        if self.two_dimensional and grid.frames > 1:
            return Problem("blocks", f"rectangles lie in one picture, not in {grid.frames} frames: choose 'sequence'")
        whole = (grid.rows, grid.columns) if self.two_dimensional else (1, grid.size)
        for key, what, given, shape in (
            ("query", "a query block", self.query, self.query_shape),
            ("memory", "a reach", self.memory, self.memory_reach),
        ):
            if given is not None and (shape[0] > whole[0] or shape[1] > whole[1]):
                there = self._size(whole)
                return Problem(
                    key, f"{what} of {self._size(shape)} is larger than the {there} there are: choose at most {there}"
                )
        return None

    def _size(self, shape: Pair) -> str:
        return f"{shape[0]} x {shape[1]} patches" if self.two_dimensional else f"{shape[1]} slots"


class ImageTransformerSettings(ImageTransformerMixerSettings, SequenceSettings):
    """A stack of pre-norm blocks, `x + attention(norm(x))`, then `x + mlp(norm(x))`."""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from head_problems(self.heads, self.width)


def _as_pair(value: int | Pair | None, usual: Pair, rows: int) -> Pair:
    if value is None:
        return usual
    return value if isinstance(value, tuple) else (rows, value)


def _written(value: int | Pair) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
