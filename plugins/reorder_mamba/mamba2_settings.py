"""Settings of the Mamba-2 mixer and of the backbone made of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from reorder_core import Problem, RunFacts
from reorder_mamba.settings import DirectionSettings, Positive, StackSettings


class Mamba2MixerSettings(DirectionSettings):
    """One Mamba-2 mixer: projection, short convolution, state space dual, gated norm, projection."""

    state: Positive = 64
    """N, size of the hidden state of each channel (128 in the published language models)"""
    conv: Positive = 4
    """length of the causal depthwise convolution before the scan, in tokens"""
    expand: Positive = 2
    """inner width of a block as a multiple of `width`"""
    head_width: Positive = 64
    """P, channels of a head; must divide expand · width"""
    groups: Positive = 1
    """in how many groups heads share what they write and read (B and C); must divide the number of heads"""
    chunk: Positive = 64
    """steps of a chunk at the most: speed and memory on a CPU, not the result"""
    scan: Literal["auto", "torch", "mamba_ssm"] = "auto"
    """which scan runs: mamba_ssm's kernels (CUDA), pure torch, or auto: the kernels where they are there"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if facts.width is not None and (said := why_not_heads(facts.width, self)):
            yield Problem(*said)


class Mamba2Settings(StackSettings, Mamba2MixerSettings):
    """A stack of Mamba-2 blocks."""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        if said := why_not_heads(self.width, self):
            yield Problem(*said)


def why_not_heads(width: int, settings: Mamba2MixerSettings) -> tuple[str, str] | None:
    """The setting that does not fit this width and why, or None where heads and groups divide it."""
    inner = settings.expand * width
    if inner % settings.head_width:
        return (
            "head_width",
            f"an inner width of {inner} (expand {settings.expand} · width {width}) is not divisible by heads of "
            f"{settings.head_width}: change one of them",
        )
    heads = inner // settings.head_width
    if heads % settings.groups:
        return "groups", f"{heads} heads can not share in {settings.groups} groups: choose groups that divide the heads"
    return None
