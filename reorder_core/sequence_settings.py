"""Settings that all backbones built on the skeleton of `reorder_core.sequence` share. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from reorder_core.settings import ComponentRef, Problem, Ref, RunFacts, Settings

if TYPE_CHECKING:
    BetweenRef = ComponentRef
else:
    BetweenRef = Ref["between"]

Positive = Annotated[int, Field(ge=1)]


def uneven_heads(width: int, heads: int) -> str:
    """What to say about heads that do not divide a width; empty where they do."""
    if width % heads == 0:
        return ""
    near = sorted((each for each in range(1, width + 1) if width % each == 0), key=lambda each: abs(each - heads))
    return f"a width of {width} is not divisible by {heads} heads: choose {near[0]}, or change the width"


def head_problems(heads: int, width: int | None) -> Iterable[Problem]:
    """`uneven_heads` as a problem of the setting `heads`. width: of the backbone, or of whoever holds the mixer."""
    if width is not None and (said := uneven_heads(width, heads)):
        yield Problem("heads", said)


Share = Annotated[float, Field(ge=0, lt=1)]


class BetweenSettings(Settings):
    """What every backbone has that can read its patches in another order from one block to the next."""

    between: BetweenRef | None = None
    """what reorders the patches between the blocks, as {name: layer_shuffle}; left out: nothing"""


class SequenceSettings(BetweenSettings):
    """A stack of pre-norm blocks: `x + mixer(norm(x))`, then `x + mlp(norm(x))`."""

    width: Positive = 192
    """D, the width of a token"""
    depth: Positive = 12
    """number of blocks"""
    mlp_ratio: Annotated[float, Field(ge=0)] = 4.0
    """hidden width of the MLP as a multiple of `width`; 0: no MLP"""
    readout: Literal["class", "mean", "last"] = "class"
    """where the summary is read: a class token, the mean of all patches, or the last patch"""
    class_position: Literal["start", "middle", "end"] | None = None
    """where the class token stands among the patches (readout class only); left out: start, of a causal model end"""
    drop_path: Share = 0.0
    """probability that an image skips the last block while training; falls linearly to 0 at the first block"""
    dropout: Share = 0.0
    """dropout after the mixer and in the MLP"""
    weights: str | None = None
    """weights to start from: a file (safetensors or torch), or the folder of a run's checkpoint; left out: random"""

    def facts_of(self, key: str, facts: RunFacts) -> Iterable[RunFacts]:
        """What stands between the blocks is told how many there are."""
        yield replace(facts, depth=self.depth) if key == "between" else facts

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if self.class_position is not None and self.readout != "class":
            yield Problem(
                "class_position", f"only readout 'class' has a class token, not '{self.readout}': leave it out"
            )
        if self.weights is not None and not Path(self.weights).expanduser().exists():
            yield Problem("weights", f"there is no {self.weights}: give a file of weights, or leave it out")
