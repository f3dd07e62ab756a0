"""Settings of what this room puts between the blocks of a backbone."""

from __future__ import annotations

from pydantic import Field

from reorder_core import Settings


class LayerShuffleSettings(Settings):
    """A random order for a layer's input in training, undone after the layer."""

    probability: float = Field(default=0.5, gt=0, le=1)
    """how often the last block reads its patches shuffled; block l of L does with probability · l / L"""
