"""Settings of the digits, alone and in clutter. Sizes are in pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from reorder_core import DataFacts, DatasetSettings, Problem, RunFacts, Settings

LICENCE = "CC BY 4.0 (UCI Machine Learning Repository, 'Optical Recognition of Handwritten Digits')"
IMAGES = 1797
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class DigitsSettings(DatasetSettings):
    """The digits as they are: 8x8 pixels, 17 levels of grey, ten classes."""

    validation: int = Field(default=360, ge=10, le=IMAGES - 10)
    """how many of the 1,797 digits are kept for validation, each class in its proportion"""
    split_seed: Seed = 0
    """which digits those are; 0 is the split that figures in the documentation refer to"""

    def describe(self) -> DataFacts:
        return DataFacts(
            height=8,
            width=8,
            channels=1,
            classes=10,
            train=IMAGES - self.validation,
            validation=self.validation,
            licence=LICENCE,
        )


class PlaceSettings(Settings):
    """Where the whole digit stands, as shares of the room it has: 0 touches the top (left), 1 the bottom (right)."""

    kind: Literal["normal", "uniform", "corner"] = "normal"
    """normal: round `centre`, further away ever more seldom; uniform: anywhere; corner: one of the four, at random"""
    centre: tuple[Share, Share] = (0.15, 0.15)
    """normal only: the likeliest place, (row, column), each from 0 to 1"""
    spread: float = Field(default=0.2, ge=0, le=10)
    """normal: standard deviation; corner: how far from the corner at most; places beyond the edge are moved onto it"""


class ClutteredDigitsSettings(DatasetSettings):
    """One whole digit a picture, the target, among fragments of other digits of the same split."""

    train: int = Field(default=8192, ge=1)
    """how many training pictures; a longer set begins with the shorter one"""
    validation: int = Field(default=2000, ge=1)
    """how many validation pictures"""
    size: int = Field(default=32, ge=8, le=1024)
    """side of the picture"""
    digit: int = Field(default=14, ge=8)
    """side of the target: the 8x8 digit is enlarged to it (bilinear)"""
    clutter: int = Field(default=8, ge=0, le=255)
    """how many fragments lie about; each is cut from another digit than the target"""
    fragment: int = Field(default=5, ge=1)
    """side of a fragment, cut from a digit that was enlarged as the target was"""
    contrast: tuple[Share, Share] = (0.6, 1.0)
    """the ink of the target and of each fragment is as strong as a number drawn from this range (1: full)"""
    noise: float = Field(default=0.05, ge=0, le=1)
    """standard deviation of nearly Gaussian noise on every pixel, where full ink is 1"""
    place: PlaceSettings = PlaceSettings()
    """where the target stands; by default usually in the upper left"""
    fresh: bool = False
    """new training pictures in every epoch, instead of the same ones"""
    seed: Seed = 0
    """of the compositions; picture i of a split depends on nothing else (with `fresh`: and on the epoch)"""

    @model_validator(mode="after")
    def _fits(self) -> ClutteredDigitsSettings:
        if self.digit > self.size:
            raise ValueError(f"digit: {self.digit} pixels do not fit a picture of size {self.size}")
        if self.fragment > self.digit:
            raise ValueError(f"fragment: {self.fragment} pixels cannot be cut from a digit of {self.digit}")
        if self.contrast[0] > self.contrast[1]:
            raise ValueError(f"contrast: write the weaker ink first, {list(reversed(self.contrast))}")
        return self

    def describe(self) -> DataFacts:
        return DataFacts(
            height=self.size,
            width=self.size,
            channels=1,
            classes=10,
            train=self.train,
            validation=self.validation,
            licence=LICENCE,
        )

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.batch_size > self.train:
            yield Problem("train", f"{self.train} pictures do not fill one batch of {facts.batch_size}")
