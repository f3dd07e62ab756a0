"""Settings of the task `visual_reasoning`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings, head_problems

Positive = Annotated[int, Field(ge=1)]
_CROSS = ("width", "depth", "heads", "mlp_ratio")  # settings of the reader cross_attention


class VisualReasoningSettings(Settings):
    """How a question is cut into words, how it meets the patches, and which answers there are."""

    reader: Literal["suffix", "cross_attention"] = "suffix"
    """suffix: the question follows the patches in one sequence; cross_attention: it looks at the backbone's tokens"""
    answers: Positive = 1000
    """how many answers can be given: the most frequent ones of the training questions; all others count as wrong"""
    loss: Literal["cross_entropy", "soft"] = "cross_entropy"
    """one answer is right; or each is as right as the share of people who gave it, and is judged by itself"""
    words: Literal["word", "bpe"] = "word"
    """how a question is cut: into words, or into byte-pair encoded parts of words"""
    vocabulary: Annotated[int, Field(ge=4)] = 4000
    """words or parts of words that are known at most; the others are one unknown word"""
    length: Positive | None = None
    """tokens of a question: shorter ones are padded, longer ones cut at their end; left out: the longest in training"""
    width: Positive | None = None
    """cross_attention only: width of the question's tokens; left out: the backbone's"""
    depth: Positive = 2
    """cross_attention only: blocks of self-attention, cross-attention and MLP"""
    heads: Positive = 4
    """cross_attention only: attention heads"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """cross_attention only: hidden width of the MLP as a multiple of the width"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of the numbers before the answers that are dropped in training"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.data.target != "questions":
            yield Problem(
                "name",
                f"visual_reasoning answers questions, and this data gives '{facts.data.target}': "
                f"set data.target to questions, or choose a data set with questions",
            )
        if self.reader == "cross_attention" and self.width is not None:
            yield from head_problems(self.heads, self.width)
        # by value: the recipe that is saved with a run spells out every default
        own = [name for name in _CROSS if getattr(self, name) != type(self).model_fields[name].default]
        if self.reader == "suffix" and own:
            yield Problem(own[0], "only the reader 'cross_attention' has blocks of its own: leave it out")
