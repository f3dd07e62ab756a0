"""Settings of the task `multilabel`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings


class MultilabelSettings(Settings):
    """A linear head with a yes or no for each class, and how it is trained."""

    read: Literal["summary", "mean"] = "summary"
    """what the head reads: the backbone's summary, or the mean of the tokens of its last level"""
    norm: bool = False
    """a LayerNorm before the linear head (the built-in backbones end in a norm of their own)"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of the numbers that are dropped before the head in training"""
    loss: Literal["bce", "asymmetric"] = "bce"
    """binary cross-entropy of each class, or the asymmetric loss (Ridnik et al. 2021), for many classes of which an
    image shows few"""
    gamma_neg: float = Field(default=4.0, ge=0)
    """asymmetric: how strongly classes that are rightly said to be absent are played down"""
    gamma_pos: float = Field(default=1.0, ge=0)
    """asymmetric: the same of classes that are rightly said to be there"""
    clip: float = Field(default=0.05, ge=0, lt=1)
    """asymmetric: an absent class of a lower probability than this costs nothing"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.data.target != "classes":
            yield Problem(
                "name",
                f"multilabel needs several classes an image, and this data has '{facts.data.target}': set data.target "
                f"to classes where the data set has it",
            )
        elif facts.data.classes is None or facts.data.classes < 1:
            yield Problem("name", "the data does not say how many classes it has: give its setting `classes`")
        for key in ("gamma_neg", "gamma_pos"):
            if 0 < getattr(self, key) < 1:  # its slope is infinite where a class is right without a doubt
                yield Problem(key, f"{getattr(self, key)} has no finite gradient: take 0, or at least 1")
        if self.loss != "asymmetric":
            for key in ("gamma_neg", "gamma_pos", "clip"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield Problem(key, "it is read by the asymmetric loss only: add loss: asymmetric, or leave it out")
