"""Settings of the Mamba mixer and of the backbone made of it; what both generations of Mamba share stands first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings
from reorder_core.sequence_settings import BetweenSettings

Positive = Annotated[int, Field(ge=1)]


class DirectionSettings(Settings):
    """In which directions a sequence is scanned."""

    direction: Literal["causal", "bidirectional", "four", "cross"] = "causal"
    """causal: first to last; bidirectional: also last to first; four: both also by columns; cross: several orders"""
    orders: Annotated[int, Field(ge=2, le=8)] | None = None
    """direction cross only: how many orders are read at once, each with a direction of its own; left out: 4"""

    @property
    def order_count(self) -> int:
        """How many orders a cross-scan reads."""
        return self.orders or 4

    @property
    def orders_read(self) -> int:
        """How many orderings a recipe gives."""
        return self.order_count if self.direction == "cross" else 1

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if self.orders is not None and self.direction != "cross":
            yield Problem(
                "orders", f"only direction 'cross' reads several orders, not '{self.direction}': leave it out"
            )


class StackSettings(DirectionSettings, BetweenSettings):
    """A stack of blocks, each `x + mixer(norm(x))`, with one norm after the last, and where its summary is read."""

    width: Positive = 192
    """D, the width of a token"""
    depth: Positive = 12
    """number of blocks"""
    readout: Literal["last", "mean", "class", "registers"] = "last"
    """where the summary is read: the last token, the mean of all, a class token, or registers spread between them"""
    class_position: Literal["start", "middle", "end"] | None = None
    """where the class token stands among the patches (readout class only); left out: end"""
    registers: Positive | None = None
    """how many registers stand among the patches, evenly spread (readout registers only); left out: 12"""
    norm: Literal["rms", "layer"] = "rms"
    """the norm before each block and after the last"""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """probability that an image skips the last block while training; falls linearly to 0 at the first block"""
    weights: str | None = None
    """weights to start from: a file in mamba-ssm's layout, or a run's checkpoint; left out: random"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if self.class_position is not None and self.readout != "class":
            yield Problem(
                "class_position", f"only readout 'class' has a class token, not '{self.readout}': leave it out"
            )
        if self.class_position == "start" and self.readout == "class" and self.direction == "causal":
            yield Problem(
                "class_position",
                "a causal model has read no patch yet at its first token: "
                "put the class token at the middle or the end, or choose direction 'bidirectional'",
            )
        yield from self._register_problems(facts)
        if self.weights is not None and not Path(self.weights).expanduser().exists():
            yield Problem("weights", f"there is no {self.weights}: give a file of weights, or leave it out")

    @property
    def register_count(self) -> int:
        """How many registers there are: 0 with another readout."""
        return (self.registers or 12) if self.readout == "registers" else 0

    def _register_problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.registers is not None and self.readout != "registers":
            yield Problem("registers", f"readout '{self.readout}' has no registers: leave it out")
        count = self.register_count
        if count and self.width % count:
            yield Problem(
                "registers", f"a width of {self.width} is not divisible by {count} registers, a share each: change one"
            )
        if count > facts.grid.size:
            yield Problem(
                "registers", f"{count} registers have no place among {facts.grid.size} patches: take at most as many"
            )


class MambaMixerSettings(DirectionSettings):
    """One Mamba-1 mixer: projection, short convolution, selective scan, gate, projection."""

    state: Positive = 16
    """size of the hidden state of each channel"""
    conv: Positive = 4
    """length of the causal depthwise convolution before the scan, in tokens"""
    expand: Positive = 2
    """inner width of a block as a multiple of `width`"""
    dt_rank: Positive | Literal["auto"] = "auto"
    """rank of the projection to the step size; auto is width / 16, rounded up"""
    scan: Literal["auto", "torch", "triton", "mamba_ssm"] = "auto"
    """which scan runs: mamba_ssm's compiled one or Triton kernels (both CUDA), pure torch, or auto: the fastest here"""


class MambaSettings(StackSettings, MambaMixerSettings):
    """A stack of Mamba-1 blocks."""
