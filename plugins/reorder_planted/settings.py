"""Settings of the planted pictures. Sizes are in pixels, places in tiles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from reorder_core import DataFacts, DatasetSettings, Problem, RunFacts

LICENCE = "made here, of random numbers"
Share = Annotated[float, Field(ge=0, le=1)]


class PlantedSettings(DatasetSettings):
    """A picture is a grid of tiles; a few of them, the carriers, show the pattern of its class, the others do not."""

    train: int = Field(default=4096, ge=1)
    """how many training pictures; a longer set begins with the shorter one"""
    validation: int = Field(default=1000, ge=1)
    """how many validation pictures"""
    size: int = Field(default=32, ge=2, le=1024)
    """side of the picture"""
    tile: int = Field(default=4, ge=2)
    """side of a tile; with patches of this size, each patch is one tile"""
    classes: int = Field(default=8, ge=2, le=1000)
    """how many classes, each with a pattern of its own, all equally frequent on average"""
    carriers: int = Field(default=4, ge=1)
    """how many tiles carry the class"""
    place: Literal["block", "scattered"] = "block"
    """block: the tiles nearest to `centre`; scattered: anywhere, the same in every picture, chosen by `seed`"""
    centre: tuple[Share, Share] = (0.5, 0.5)
    """block only: where the carriers lie, (row, column), from 0 (top, left) to 1 (bottom, right): move them here"""
    jitter: int = Field(default=0, ge=0)
    """each picture's carriers are moved by up to so many tiles up or down and left or right, over the edges"""
    distractors: Share = 1.0
    """share of the other tiles that show the pattern of a class drawn at random; the rest of them show none"""
    strength: float = Field(default=1.0, gt=0, le=100)
    """contrast of the patterns, whose pixels are plus or minus this"""
    noise: float = Field(default=2.0, ge=0, le=100)
    """standard deviation of Gaussian noise on every pixel"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """of patterns, places and pictures; picture i of a split depends on nothing else"""

    @model_validator(mode="after")
    def _fits(self) -> PlantedSettings:
        if self.size % self.tile:
            raise ValueError(f"tile: a picture of {self.size} pixels is not divisible into tiles of {self.tile}")
        if self.carriers > self.tiles:
            raise ValueError(f"carriers: there are {self.tiles} tiles, not {self.carriers}")
        if self.jitter >= self.side:
            raise ValueError(f"jitter: a picture of {self.side} tiles a side has no room to move by {self.jitter}")
        if self.tile**2 < 32 and self.classes > 2 ** (self.tile**2):
            raise ValueError(f"classes: a tile of {self.tile} pixels has only {2 ** (self.tile**2)} patterns")
        return self

    @property
    def side(self) -> int:
        """Tiles along one side."""
        return self.size // self.tile

    @property
    def tiles(self) -> int:
        return self.side**2

    def describe(self) -> DataFacts:
        return DataFacts(
            height=self.size,
            width=self.size,
            channels=1,
            classes=self.classes,
            train=self.train,
            validation=self.validation,
            licence=LICENCE,
        )

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.batch_size > self.train:
            yield Problem("train", f"{self.train} pictures do not fill one batch of {facts.batch_size}")
