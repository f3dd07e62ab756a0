"""Settings of the orderings that are read off the data."""

from __future__ import annotations

from pydantic import Field

from reorder_core import Settings


class SpectralSettings(Settings):
    """The order of the Fiedler vector of the patches' correlations."""

    images: int = Field(default=1024, ge=2)
    """how many training images are looked at, of those that a run shows its orderings (at most 1,024)"""


class GreedySimilaritySettings(Settings):
    """A short tour through the patches, whose steps lead to patches that look alike."""

    images: int = Field(default=256, ge=1)
    """how many training images are looked at, of those that a run shows its orderings (at most 1,024)"""
    starts: int = Field(default=32, ge=1)
    """from how many patches, evenly spread, a tour is tried; the shortest one is kept"""
    two_opt: bool = True
    """shorten the tour by turning stretches of it round until no turn helps"""
