"""Settings of the vision transformers: our own, its attention as a mixer, and timm's by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, SequenceSettings, Settings, head_problems
from reorder_core.sequence_settings import BetweenSettings

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class VitMixerSettings(Settings):
    """Full multi-head self-attention."""

    heads: Positive = 3
    """attention heads; the width must divide by it"""
    rotary: bool = False
    """turn queries and keys by the row and column of their patch, so that attention sees how far two patches are apart;
    the width of a head must then divide by 4"""
    rotary_base: Annotated[float, Field(gt=1)] = 100.0
    """frequencies of `rotary` fall from 1 to nearly 1/base in a head (100: RoPE-ViT, 10000: EVA-02)"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if self.rotary and facts.grid.frames > 1:
            yield Problem("rotary", "it turns by row and column, and knows no frames: use positions for a video")
        if facts.width is not None:
            yield from self._head_problems(facts.width)

    def _head_problems(self, width: int) -> Iterable[Problem]:
        yield from head_problems(self.heads, width)
        if self.rotary and width % self.heads == 0 and width // self.heads % 4:
            yield Problem("rotary", f"a head of {width // self.heads} channels is not divisible by 4: change heads")


class VitSettings(VitMixerSettings, SequenceSettings):
    """A stack of pre-norm transformer blocks with full attention."""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from self._head_problems(self.width)


class TimmVitSettings(BetweenSettings):
    """A vision transformer of timm by its name."""

    model: str
    """name of a ViT, DeiT, CLIP, SigLIP, DINOv2 or DINOv3, or EVA model of timm, with or without the tag of its weights
    (`vit_small_patch16_224.augreg_in21k`)"""
    weights: str | None = None
    """`pretrained`: timm's, from your cache or downloaded; or a file in timm's format; left out: random"""
    readout: Literal["model", "class", "mean"] = "model"
    """where the summary is read: as the model does it, from its class token, or from the mean of all patches"""
    depth: Positive | None = None
    """keep only so many of its first blocks; left out: all"""
    drop_path: Share = 0.0
    """probability that an image skips the last block while training; falls linearly to 0 at the first block"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if facts.positions != "none":
            yield Problem("model", "it brings its own patch embedding and positions: write positions: {kind: none}")
        if facts.grid.frames > 1:
            yield Problem("model", "timm's vision transformers read single images, not frames: choose the backbone vit")
        if self.weights not in (None, "pretrained") and not Path(str(self.weights)).expanduser().is_file():
            yield Problem("weights", f"there is no file {self.weights}: give one, or write pretrained")
