"""Settings of the task `reconstruction`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings


class ReconstructionSettings(Settings):
    """Which patches are masked, by what, and how the pixels that were there are predicted and compared."""

    mask: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """share of the patches that are masked (SimMIM: 0.6, MAE: 0.75); at least one is, and at least one is not"""
    block: Annotated[int, Field(ge=1)] = 1
    """side, in patches, of the squares that are masked together (SimMIM masks 32 pixels at a time)"""
    fill: Literal["learned", "grey"] = "learned"
    """what stands in place of a masked patch: learned pixels, the same everywhere, or zeros (the data's mean)"""
    normalise: bool = True
    """the pixels that are predicted are those of each patch with mean 0 and variance 1 (MAE)"""
    loss: Literal["masked", "all"] = "masked"
    """the error of the masked patches (MAE, SimMIM), or of all patches"""
    head: Literal["linear", "mlp"] = "linear"
    """from a patch's token to its pixels: one linear layer (SimMIM), or two with GELU between them"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 2.0
    """hidden width of the head `mlp` as a multiple of the token's width"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        grid = facts.grid
        if grid.frames > 1:
            yield Problem("name", f"reconstruction masks single images, not {grid.frames} frames")
        if self.block >= max(grid.rows, grid.columns):
            yield Problem(
                "block", f"one square of {self.block} patches covers the whole grid of {grid}: take smaller ones"
            )
        if self.normalise and facts.patch**2 * facts.data.channels < 2:
            yield Problem(
                "normalise", "a patch of one number has no variance: write normalise: false, or take larger patches"
            )
