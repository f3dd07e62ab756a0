"""Settings of the Mamba backbone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings

Positive = Annotated[int, Field(ge=1)]


class MambaSettings(Settings):
    """A stack of Mamba-1 blocks, each `x + mixer(norm(x))`, with one norm after the last."""

    width: Positive = 192
    """D, the width of a token"""
    depth: Positive = 12
    """number of blocks"""
    state: Positive = 16
    """size of the hidden state of each channel"""
    conv: Positive = 4
    """length of the causal depthwise convolution before the scan, in tokens"""
    expand: Positive = 2
    """inner width of a block as a multiple of `width`"""
    dt_rank: Positive | Literal["auto"] = "auto"
    """rank of the projection to the step size; auto is width / 16, rounded up"""
    direction: Literal["causal", "bidirectional"] = "causal"
    """causal reads from first to last; bidirectional also from last to first, and averages the two"""
    readout: Literal["last", "mean", "class"] = "last"
    """where the summary is read: the last token, the mean of all, or a class token where it stands"""
    class_position: Literal["start", "middle", "end"] | None = None
    """where the class token stands among the patches (readout class only); left out: end"""
    norm: Literal["rms", "layer"] = "rms"
    """the norm before each block and after the last"""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """probability that an image skips the last block while training; falls linearly to 0 at the first block"""
    scan: Literal["auto", "torch", "mamba_ssm"] = "auto"
    """which scan runs: mamba_ssm's compiled one (CUDA), pure torch, or auto: the compiled one where it is there"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
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
