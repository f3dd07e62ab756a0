"""Settings of the digits, alone, in clutter and in scenes. Sizes are in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Look:
    """How hard scenes are to read: the settings of `digit_scenes` that `difficulty` stands for."""

    digits: tuple[int, int]
    side: tuple[int, int]
    contrast: tuple[float, float]
    noise: float
    overlap: float = 0.0
    clutter: int = 0
    fragment: int = 5


LOOKS = {
    "easy": Look(digits=(1, 2), side=(18, 22), contrast=(0.8, 1.0), noise=0.0),
    "medium": Look(digits=(1, 4), side=(14, 22), contrast=(0.6, 1.0), noise=0.05),
    "hard": Look(digits=(3, 6), side=(12, 20), contrast=(0.4, 1.0), noise=0.1, clutter=8),
}
Kind = Literal["count", "exist", "left", "right", "above", "below", "where", "largest", "smallest", "sum"]
KINDS: tuple[Kind, ...] = ("count", "exist", "left", "right", "above", "below", "where", "largest", "smallest")
Digits = Annotated[int, Field(ge=1, le=8)]
Side = Annotated[int, Field(ge=8, le=512)]


def rows_for(digits: int) -> int:
    """How many rows, and columns, of equal cells hold so many digits, one a cell."""
    return math.isqrt(digits - 1) + 1


class DigitScenesSettings(DatasetSettings):
    """Several whole digits a picture, each in its own place, with what is known of them."""

    target: Literal["boxes", "mask", "classes", "captions", "questions"] = "boxes"
    """boxes: and a mask of each digit; mask: the class of each pixel; classes: which digits are there"""
    train: int = Field(default=4096, ge=1)
    """how many training scenes; a longer set begins with the shorter one"""
    validation: int = Field(default=512, ge=1)
    """how many validation scenes"""
    size: int = Field(default=64, ge=8, le=1024)
    """side of the picture"""
    difficulty: Literal["easy", "medium", "hard"] = "medium"
    """what the settings from `digits` to `fragment` are where they are left out; the README has them"""
    digits: tuple[Digits, Digits] | None = None
    """how many digits a scene has, from – to; medium: [1, 4]"""
    side: tuple[Side, Side] | None = None
    """side of the square to which the 8x8 digit is enlarged, from – to; medium: [14, 22]"""
    contrast: tuple[Share, Share] | None = None
    """the ink of each digit is as strong as a number drawn from this range (1: full); medium: [0.6, 1.0]"""
    noise: Share | None = None
    """standard deviation of nearly Gaussian noise on every pixel, where full ink is 1; medium: 0.05"""
    overlap: float | None = Field(default=None, ge=0, le=0.5)
    """how much of the smaller one two digits' squares may share; 0, the default: they stand clear of each other"""
    clutter: int | None = Field(default=None, ge=0, le=255)
    """how many fragments, cut from digits of the same split, lie about; medium: 0"""
    fragment: int | None = Field(default=None, ge=1)
    """side of a fragment; 5 where it is left out"""
    captions: int = Field(default=5, ge=1, le=5)
    """target: captions only: how many a scene has, the first of the five templates"""
    questions_per_scene: int = Field(default=2, ge=1, le=8)
    """target: questions only: how many are asked about a scene; each is an item of the split, with its picture"""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS
    """target: questions only: what is asked; sum, which is not by default, adds the digits up"""
    wording: Literal["varied", "plain"] = "varied"
    """plain: the same words in every scene, so that a caption can be guessed word by word"""
    fresh: bool = False
    """new training scenes in every epoch, instead of the same ones"""
    seed: Seed = 0
    """of the scenes; scene i of a split depends on nothing else (with `fresh`: and on the epoch)"""

    def look(self) -> Look:
        """The settings of `difficulty`, and those that were given in their place."""
        given = {name: getattr(self, name) for name in Look.__dataclass_fields__}
        return replace(LOOKS[self.difficulty], **{name: value for name, value in given.items() if value is not None})

    @model_validator(mode="after")
    def _fits(self) -> DigitScenesSettings:
        look = self.look()
        for name, low_first in (("digits", look.digits), ("side", look.side), ("contrast", look.contrast)):
            if low_first[0] > low_first[1]:
                raise ValueError(f"{name}: write the smaller number first, {list(reversed(low_first))}")
        rows = rows_for(look.digits[1])
        if rows * look.side[1] > self.size:
            raise ValueError(
                f"size: {self.size} pixels do not hold {look.digits[1]} digits of up to {look.side[1]} in {rows} rows: "
                f"make it {rows * look.side[1]}, or lower side or digits"
            )
        if look.fragment > look.side[1]:
            raise ValueError(f"fragment: {look.fragment} pixels cannot be cut from a digit of {look.side[1]}")
        sure = sum({"exist": 10, "count": 1, "sum": 1}.get(kind, 0) for kind in set(self.kinds))
        if self.target == "questions" and sure < self.questions_per_scene:
            raise ValueError(
                f"kinds: {', '.join(self.kinds)} do not give every scene {self.questions_per_scene} questions "
                "(with one digit there is nothing beside it): add exist"
            )
        return self

    def describe(self) -> DataFacts:
        items = self.questions_per_scene if self.target == "questions" else 1
        return DataFacts(
            height=self.size,
            width=self.size,
            channels=1,
            target=self.target,
            classes={"boxes": 10, "classes": 10, "mask": 11}.get(self.target),
            train=items * self.train,
            validation=items * self.validation,
            licence=LICENCE,
        )

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.batch_size > (facts.data.train or 0):
            yield Problem("train", f"{facts.data.train} items do not fill one batch of {facts.batch_size}")
