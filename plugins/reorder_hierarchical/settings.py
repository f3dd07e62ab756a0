"""Settings of the hierarchy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from reorder_core import ComponentRef, Grid, Problem, Ref, RunFacts, Settings

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
OneForEachStage = Annotated[tuple[Positive, ...], Field(min_length=1)]

if TYPE_CHECKING:
    MixerRef = ComponentRef
else:
    MixerRef = Ref["mixer"]


class HierarchicalSettings(Settings):
    """Stages of pre-norm blocks; between two stages neighbours are merged, and the sequence gets shorter and wider."""

    mixer: MixerRef = ComponentRef("mixer", "vit")
    """what moves information along the sequence in every stage: a mixer, as `mamba` or {name: vit, heads: 6}"""
    widths: OneForEachStage = (48, 96, 192)
    """width of a token in each stage"""
    depths: OneForEachStage = (1, 1, 2)
    """number of blocks in each stage"""
    merge: Literal["sequence", "grid"] = "sequence"
    """neighbours in the sequence, or squares of the grid"""
    factor: Annotated[int, Field(ge=2)] = 2
    """how many neighbours of the sequence are merged, or the side of a square on the grid"""
    mlp_ratio: Annotated[float, Field(ge=0)] = 4.0
    """hidden width of the MLP as a multiple of the stage's width; 0: no MLP"""
    readout: Literal["mean", "last"] = "mean"
    """where the summary is read: the mean of the last stage's tokens, or the last of them"""
    drop_path: Share = 0.0
    """probability that an image skips the last block while training; falls linearly to 0 at the first block"""
    weights: str | None = None
    """weights to start from: a file (safetensors or torch), or the folder of a run's checkpoint; left out: random"""

    @property
    def width(self) -> int:
        """D of the summary: the last stage's."""
        return self.widths[-1]

    def grids(self, grid: Grid) -> list[Grid]:
        """The grid of each stage. Merging in the sequence leaves a line, which has no rows any more."""
        grids = [grid]
        for _ in self.widths[1:]:
            before = grids[-1]
            if self.merge == "sequence":
                grids.append(Grid(1, -(-before.size // self.factor)))
            else:
                grids.append(Grid(-(-before.rows // self.factor), -(-before.columns // self.factor), before.frames))
        return grids

    def mistakes(self, grid: Grid) -> Iterable[Problem]:
        """What is wrong with these settings on this grid."""
        if len(self.widths) != len(self.depths):
            yield Problem("depths", f"{len(self.depths)} stages, but widths has {len(self.widths)}: give one for each")
        grids = self.grids(grid)
        for number, (before, after) in enumerate(pairwise(grids), start=2):
            if before.size == after.size:
                yield Problem(
                    "widths", f"nothing is left to merge before stage {number}, on a grid of {before}: use fewer stages"
                )
                return

    def facts_of(self, key: str, facts: RunFacts) -> Iterable[RunFacts]:
        if key != "mixer" or len(self.widths) != len(self.depths):
            return ()
        stages = zip(self.widths, self.grids(facts.grid), strict=True)
        return [replace(facts, width=width, grid=grid) for width, grid in stages]

    @property
    def orders_read(self) -> None:
        """As many as the mixer reads, which is known when it is built."""
        return None

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from self.mistakes(facts.grid)
        if self.weights is not None and not Path(self.weights).expanduser().exists():
            yield Problem("weights", f"there is no {self.weights}: give a file of weights, or leave it out")
