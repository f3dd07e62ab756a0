"""Settings of the Longformer: how wide its window is, and which tokens are global."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, SequenceSettings, Settings, head_problems

Positive = Annotated[int, Field(ge=1)]


class LongformerMixerSettings(Settings):
    """Sliding-window attention with global tokens (Beltagy et al. 2020, section 3.1)."""

    heads: Positive = 3
    """attention heads; the width must divide by it"""
    window: Annotated[int, Field(ge=2, multiple_of=2)] = 14
    """slots that a token sees beside itself, half of them on each side; even"""
    dilation: Positive = 1
    """a token sees every so many-th slot of a window that reaches as many times as far; 1: all of its neighbours"""
    global_tokens: Literal["none", "special"] | Positive = "none"
    """tokens that see all and are seen by all: none; special: the class token and other special tokens; a number n:
    every n-th patch of the sequence as well"""
    attention_backend: Literal["auto", "banded", "flex"] = "auto"
    """what computes it: flex (compiled, on a CUDA device), banded (blocks, pure torch), or auto: flex where it can"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from head_problems(self.heads, facts.width)
        if said := too_wide(self.window, self.dilation, facts.grid.size):
            yield Problem("window", said)


class LongformerSettings(LongformerMixerSettings, SequenceSettings):
    """A stack of Longformer blocks: attention, then an MLP, each with its norm and a skip."""

    global_tokens: Literal["none", "special"] | Positive = "special"
    """tokens that see all and are seen by all: none; special: the class token, where there is one; a number n: every
    n-th patch of the sequence as well"""
    norm: Literal["pre", "post"] = "pre"
    """pre: `x + f(norm(x))`, one norm at the end, as in vision transformers; post: `norm(x + f(x))`, one norm at the
    start, as in the paper's model and in published weights"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        yield from head_problems(self.heads, self.width)

    @property
    def has_global_tokens(self) -> bool:
        """Whether any token of this model is global."""
        return self.global_tokens not in ("none", "special") or (
            self.global_tokens == "special" and self.readout == "class"
        )


def too_wide(window: int, dilation: int, length: int) -> str:
    """What to say about a window whose outermost slots no token of the sequence has; empty where some has."""
    if window > length:
        return f"a window of {window} slots is larger than the sequence of {length} patches: choose at most {length}"
    reach = window // 2 * dilation
    if reach < length:
        return ""
    return (
        f"a window of {window} slots, every {dilation} apart, reaches {reach} to each side, which no token of a "
        f"sequence of {length} patches has: choose a smaller window or dilation"
    )
