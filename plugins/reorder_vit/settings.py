"""Settings of the vision transformer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class VitSettings(Settings):
    """A stack of pre-norm transformer blocks with full attention."""

    width: Positive = 192
    """D, the width of a token"""
    depth: Positive = 12
    """number of blocks"""
    heads: Positive = 3
    """attention heads; the width must divide by it"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """hidden width of the MLP as a multiple of `width`"""
    readout: Literal["class", "mean"] = "class"
    """where the summary is read: a class token, or the mean of all patches"""
    drop_path: Share = 0.0
    """probability that an image skips the last block while training; falls linearly to 0 at the first block"""
    dropout: Share = 0.0
    """dropout after the attention's projection and in the MLP"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.width % self.heads:
            yield Problem("heads", f"a width of {self.width} is not divisible by {self.heads} heads")
