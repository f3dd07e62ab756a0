"""Settings of the backbone `arm` and of the task `arm_pretraining`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings, head_problems
from reorder_core.sequence_settings import BetweenSettings

Positive = Annotated[int, Field(ge=1)]


class ArmSettings(BetweenSettings):
    """Blocks `x + mamba(norm(x))`, then `x + mlp(norm(x))`. ARM-B, as published, has a width of 768."""

    width: Positive = 192
    """D, the width of a token (ARM-B: 768)"""
    depth: Positive = 12
    """number of blocks"""
    direction: Literal["four", "causal", "bidirectional"] = "four"
    """four: along rows and columns of the sequence, each both ways, as fine-tuned; causal: as pretrained"""
    class_token: bool | None = None
    """a token in the middle of the patches, read or not; left out: yes, but not with direction causal"""
    readout: Literal["mean", "class", "last"] = "mean"
    """where the summary is read: the mean of all patches (as published), the class token, or the last patch"""
    state: Positive = 16
    """size of the hidden state of each channel"""
    conv: Positive = 4
    """length of the causal depthwise convolution before the scan, in tokens"""
    expand: Positive = 1
    """inner width of the mixer as a multiple of `width`"""
    levels: Positive = 1
    """tokens of how many depths are handed on; pretraining reads 4: after 1/2, 2/3, 5/6 and all of the blocks"""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """probability that an image skips the last block while training; falls linearly to 0 at the first block"""
    scan: Literal["auto", "torch", "mamba_ssm", "triton"] = "auto"
    """which selective scan runs; see the backbone mamba"""
    weights: str | None = None
    """weights to start from: ARM's, pretrained or fine-tuned, or those of a run (file or folder); left out: random"""

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands among the patches."""
        return self.direction != "causal" if self.class_token is None else self.class_token

    @property
    def depths_kept(self) -> tuple[int, ...]:
        """After how many blocks tokens are handed on, deepest first."""
        return tuple(self.depth - number * max(1, self.depth // 6) for number in range(self.levels))

    def mixer_settings(self) -> dict[str, Any]:
        """What each block's mixer, the component `mamba`, is given."""
        return {key: getattr(self, key) for key in ("state", "conv", "expand", "direction", "scan")}

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.readout == "class" and not self.has_class_token:
            yield Problem("readout", "there is no class token to read: set class_token: true, or read the mean")
        if self.levels > 1 and self.depths_kept[-1] < 1:
            yield Problem("levels", f"{self.depth} blocks have no {self.levels} depths to hand on: take fewer levels")
        if self.weights is not None and not Path(self.weights).expanduser().exists():
            yield Problem("weights", f"there is no {self.weights}: give a file of weights, or leave it out")
        if self.weights is not None and facts.positions != "none":
            yield Problem("weights", "weights bring their own positions: write positions: {kind: none}")


class ArmPretrainingSettings(Settings):
    """The decoder that predicts the next cluster; its numbers are those of the published code."""

    cluster: Positive = 16
    """patches of a cluster: so many that follow each other in the order; the last cluster may be shorter"""
    levels: Positive = 1
    """how many of the backbone's levels the decoder reads: the same number as the backbone's `levels`"""
    width: Positive = 512
    """width of the decoder"""
    depth: Positive = 4
    """blocks of the decoder"""
    heads: Positive = 8
    """attention heads of the decoder"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """hidden width of the decoder's MLP as a multiple of its width"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.cluster >= facts.grid.size:
            yield Problem(
                "cluster", f"{facts.grid.size} patches are no two clusters of {self.cluster}: take smaller clusters"
            )
        yield from head_problems(self.heads, self.width)
        if self.width % 4:
            yield Problem("width", f"positions of the decoder need a width divisible by 4, not {self.width}")
