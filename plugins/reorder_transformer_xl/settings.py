"""Settings of the Transformer-XL mixer and backbone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, SequenceSettings, Settings, head_problems
from reorder_transformer_xl.segments import Segment, cut, stands_alone, why_no_cut

Positive = Annotated[int, Field(ge=1)]


class TransformerXLMixerSettings(Settings):
    """Attention within a segment and to a memory of the tokens before it."""

    heads: Positive = 3
    """number of attention heads; must divide the width"""
    segment: Segment = "auto"
    """tokens of a segment, the last may be shorter; auto: a quarter of the sequence, or all of it where faithful"""
    memory: Annotated[int, Field(ge=0)] = 128
    """how many tokens before its first one a segment still sees; no gradient flows into them"""
    causal: bool = True
    """a token sees no later one; false: it sees its whole segment"""
    relative: bool = True
    """the native relative positions, with the biases u and v; false: attention by content alone"""
    distances: Literal["sinusoid", "learned"] = "sinusoid"
    """what stands for a distance between two tokens: a fixed sinusoid, or a learned vector (only with `relative`)"""
    faithful: bool = False
    """as the released REOrder code: `memory` is ignored, none is carried; a class token at the start sees all and
    is seen by all"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from head_problems(self.heads, facts.width)
        patches, special = facts.grid.size, self.special_tokens()
        if message := why_no_cut(patches + special, self.segment, special):
            yield Problem("segment", message)
        if self.distances == "learned" and not self.relative:
            yield Problem("distances", "without relative positions there is no distance to learn: leave it out")

    def special_tokens(self) -> int:
        """How many tokens of the sequence are no patches."""
        return 0


class TransformerXLSettings(TransformerXLMixerSettings, SequenceSettings):
    """A stack of Transformer-XL layers: attention with memory, then an MLP with ReLU, each with its norm."""

    norm: Literal["post", "pre"] = "post"
    """where the norms stand: after each branch is added, as published, or before each branch (pre_lnorm)"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from head_problems(self.heads, self.width)
        if self.causal and self.class_position == "start" and self.readout == "class" and not self.faithful:
            yield Problem(
                "class_position",
                "a causal model has read no patch yet at its first token: "
                "put the class token at the middle or the end, or choose causal: false",
            )
        if message := self.why_read_alone(facts.grid.size):
            yield Problem("segment", message)

    def why_read_alone(self, patches: int) -> str:
        """Why no gradient would reach any other token from where the summary is read; empty where it does."""
        position = self.class_position or ("end" if self.causal and not self.class_sees_all() else "start")
        at_the_end = self.readout == "last" or (self.readout == "class" and position == "end")
        length = patches + self.special_tokens()
        size = cut(length, self.segment, self.memory, self.faithful).size
        if not at_the_end or not stands_alone(length, size):
            return ""
        better = next(other for other in range(size + 1, length + 1) if not stands_alone(length, other))
        what = "class token" if self.readout == "class" else "last patch, which is read,"
        return (
            f"with segments of {size} the {what} stands alone in the last one, and no gradient flows through the "
            f"memory to any other: choose {better}, or readout mean"
        )

    def special_tokens(self) -> int:
        return 1 if self.readout == "class" else 0

    def class_sees_all(self) -> bool:
        """Whether the class token stands outside the causal rule (only in the released code's form)."""
        at_start = self.readout == "class" and self.class_position in (None, "start")
        return self.faithful and self.causal and at_start
