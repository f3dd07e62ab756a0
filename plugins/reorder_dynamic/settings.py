"""Settings of what this room puts between the blocks of a backbone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings


class LayerShuffleSettings(Settings):
    """A random order for a layer's input in training, undone after the layer."""

    probability: float = Field(default=0.5, gt=0, le=1)
    """how often the last block reads its patches shuffled; block l of L does with probability · l / L"""


class DynamicReorderSettings(Settings):
    """Patches reordered once on the way through the model, image by image."""

    after: int = Field(default=1, ge=1)
    """how many blocks read the patches in the initial order; the rest read them in the new one"""
    direction: Literal["ascending", "descending"] = "ascending"
    """ascending: the most telling patches are read last, where a causal model remembers best; descending: first"""
    learn: Literal["exit", "order", "both"] = "both"
    """what teaches the scores: a prediction read early with the scores as weights (the task's setting `auxiliary`), the
    loss of the whole model through the soft order, or both"""
    spread: float = Field(default=1.0, gt=0)
    """how much more a patch must score than another to be moved from one end of the order to the other"""
    temperature: float = Field(default=0.1, gt=0)
    """of the soft order whose gradient teaches the scores (learn: order, both), in units of the scores"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """No block would be left to read the new order."""
        if facts.depth is not None and self.after >= facts.depth:
            yield Problem(
                "after", f"of {facts.depth} blocks none would be left to read the new order: at most {facts.depth - 1}"
            )
