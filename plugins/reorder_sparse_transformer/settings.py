"""Settings of the Sparse Transformer: the pattern, its sizes, and how its two parts are put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Grid, Problem, RunFacts, SequenceSettings, Settings, head_problems

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]

_OF_PATTERN = {
    "strided": ("stride", "factorised", "causal"),
    "fixed": ("stride", "summary", "factorised", "causal"),
    "bigbird": ("block", "global_blocks", "random_blocks", "seed"),
}


class SparsePatternSettings(Settings):
    """Which slots see which (Child et al. 2019, section 4; Zaheer et al. 2020, section 2 and appendix D)."""

    heads: Positive = 4
    """attention heads; the width must divide by it"""
    pattern: Literal["strided", "fixed", "bigbird"] = "strided"
    """strided: the `stride` slots around, and every `stride`-th; fixed: the own block of `stride` slots, and the last
    `summary` slots of every block; bigbird: the blocks around, global blocks, and random ones"""
    stride: Positive | Literal["auto"] | None = None
    """l (strided, fixed; left out: auto): slots of the window or block; auto is the number of columns of the grid"""
    summary: Positive | None = None
    """c (fixed; left out: 1): how many slots at the end of a block are seen by all"""
    causal: bool = False
    """whether a slot sees itself and earlier slots only, as the paper's generative models do (strided, fixed)"""
    block: Positive | None = None
    """slots of a block (bigbird; left out: 8)"""
    global_blocks: Annotated[int, Field(ge=0, le=2)] | None = None
    """blocks that see all and are seen by all (bigbird; left out: 2): 1 is the first, 2 the first and the last"""
    random_blocks: Count | None = None
    """random blocks that each block and head sees (bigbird; left out: 2)"""
    seed: Count | None = None
    """of the random blocks (bigbird; left out: 0); each layer of a backbone draws its own"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from head_problems(self.heads, facts.width)
        if misfit := self.misfit(facts.grid):
            yield misfit

    def misfit(self, grid: Grid) -> Problem | None:
        """The first reason why this pattern does not fit a grid."""
        for name in sorted({key for keys in _OF_PATTERN.values() for key in keys} - {*_OF_PATTERN[self.pattern]}):
            value = getattr(self, name, None)
            if value is not None and value is not False and value != "merged":
                return Problem(name, f"the pattern '{self.pattern}' has no {name}: leave it out")
        if self.pattern == "bigbird":
            return self._misfit_of_blocks(grid.size)
        stride = self.stride_on(grid)
        if stride > grid.size:
            return Problem("stride", f"a stride of {stride} is larger than the sequence of {grid.size} slots")
        if self.pattern == "fixed" and (self.summary or 1) > stride:
            return Problem("summary", f"a block of {stride} slots has no {self.summary} to be seen by all")
        return None

    def _misfit_of_blocks(self, slots: int) -> Problem | None:
        block, (edges, random) = self.block or 8, self.global_and_random
        if block > slots:
            return Problem("block", f"a block of {block} is larger than the sequence of {slots} slots")
        blocks, wanted = -(-slots // block), 3 + edges + random
        if blocks < wanted:
            return Problem(
                "block",
                f"{slots} slots are {blocks} blocks of {block}, and 3 around, {edges} global and {random} random ones "
                f"are wanted: choose a smaller block",
            )
        return None

    def stride_on(self, grid: Grid) -> int:
        """l on a grid, in slots."""
        return self.stride if isinstance(self.stride, int) else grid.columns

    @property
    def global_and_random(self) -> tuple[int, int]:
        """How many global and random blocks BigBird has."""
        return (
            2 if self.global_blocks is None else self.global_blocks,
            2 if self.random_blocks is None else self.random_blocks,
        )


class SparseTransformerMixerSettings(SparsePatternSettings):
    """One layer of sparse attention."""

    factorised: Literal["merged", "heads"] = "merged"
    """how the two parts of a strided or fixed pattern meet: merged: every head sees both; heads: half of them each"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from odd_heads(self.factorised, self.heads)


class SparseTransformerSettings(SparsePatternSettings, SequenceSettings):
    """A stack of pre-norm blocks, `x + attention(norm(x))`, then `x + mlp(norm(x))`."""

    factorised: Literal["merged", "heads", "alternating"] = "merged"
    """how the two parts of a strided or fixed pattern meet: merged: every head sees both; heads: half of them each;
    alternating: the blocks of the stack take them in turn, window or own block first"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from odd_heads(self.factorised, self.heads)
        yield from head_problems(self.heads, self.width)


def odd_heads(factorised: str, heads: int) -> Iterable[Problem]:
    """What is wrong with halving the heads, if anything."""
    if factorised == "heads" and heads % 2:
        yield Problem("heads", f"{heads} heads cannot be halved between the two parts: choose an even number")
