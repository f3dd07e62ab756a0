"""Settings of the task `captioning`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings

Positive = Annotated[int, Field(ge=1)]


class CaptioningSettings(Settings):
    """How captions are cut into pieces, read after the patches or beside them, and said."""

    reader: Literal["prefix", "cross_attention"] = "prefix"
    """prefix: the words follow the patches in one causal sequence; cross_attention: a decoder looks at the tokens"""
    vocabulary: Annotated[int, Field(ge=8)] = 1000
    """pieces of words at most, the four marks (pad, begin, end, unknown) included; learned from training captions"""
    lower_case: bool = True
    """captions are read and said in lower case"""
    max_words: Annotated[int, Field(ge=1, le=1000)] = 40
    """pieces of a caption at most: a longer one is cut when it is read, and no longer one is said"""
    tied: bool = True
    """the head that says words is the table that reads them"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of the target spread evenly over all pieces in training (Szegedy et al. 2016)"""
    beam: Annotated[int, Field(ge=1, le=64)] = 1
    """lines that are kept while a caption is said; 1 is greedy"""
    length_penalty: Annotated[float, Field(ge=0, le=4)] | None = None
    """with a beam: lines compare by log-probability / length ** this; left out: 0, by log-probability itself"""
    depth: Positive | None = None
    """reader cross_attention only: blocks of the decoder; left out: 2"""
    heads: Positive | None = None
    """reader cross_attention only: heads of its attention; left out: 4"""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """reader cross_attention only: share of a branch's numbers that are dropped in training; left out: 0"""
    slot_positions: bool | None = None
    """reader cross_attention only: each token is told its slot, so that the decoder sees the order; left out: false"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.data.target != "captions":
            yield Problem(
                "name",
                f"captioning learns from captions, and this data gives '{facts.data.target}': "
                f"set data.target to captions, or name a data set that has them",
            )
        if self.reader != "cross_attention":
            for key in ("depth", "heads", "dropout", "slot_positions"):
                if getattr(self, key) is not None:
                    yield Problem(
                        key,
                        f"only reader 'cross_attention' has a decoder of its own, not '{self.reader}': leave it out",
                    )
        if self.beam == 1 and self.length_penalty is not None:
            yield Problem("length_penalty", "greedy decoding compares no lines: leave it out, or raise beam")
