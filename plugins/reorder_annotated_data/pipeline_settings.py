"""Settings that all data sets of this room share: from a picture to a normalised image. Sizes are in pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reorder_core import DataFacts, DatasetSettings

Side = Annotated[int, Field(ge=1, le=8192)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]
SplitName = Literal["train", "validation"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: Targets in words: mirroring an image would make "left" wrong.
IN_WORDS = ("captions", "questions")


class PipelineSettings(DatasetSettings):
    """How pictures, and their boxes and masks with them, become images of one size."""

    root: Name
    """the folder that everything lies in; ~ is your home"""
    size: Side | tuple[Side, Side] = 224
    """side of the images, or [height, width]"""
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    """letterbox: the whole picture in its proportions, the rest filled; stretch: squashed; crop: cut from the centre"""
    resize: Side | None = None
    """fit: crop only: the shorter side before cropping; as small as `size` allows where left out"""
    crop: Literal["none", "random_resized", "scale_jitter"] = "none"
    """training images: as `fit` says; a random part; or enlarged or shrunk (within `size`) and cut at random"""
    scale: tuple[float, float] | None = None
    """random_resized: the share of the picture that is kept, from – to; scale_jitter: the factor, from – to"""
    flip: Probability | None = None
    """how often training images are mirrored left to right; where left out half, and never beside words"""
    color_jitter: float = Field(default=0.0, ge=0)
    """strength of random brightness, contrast and saturation of training images (0: off)"""
    channels: Literal[1, 3] = 3
    """3: RGB, 1: grey; pictures are converted"""
    mean: Annotated[list[float], Field(min_length=1, max_length=3)] | None = None
    """of each channel, for normalisation; ImageNet's where it is left out (their average for grey)"""
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=3)] | None = None
    """of each channel, likewise"""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """of the augmentation; the run's own seed where it is left out"""
    licence: str = ""
    """of the images, as reports should show it"""

    @property
    def height_width(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """(mean, standard deviation) of each channel, pixels from 0 to 1."""
        means, stds = self.mean or list(IMAGENET_MEAN), self.std or list(IMAGENET_STD)
        if self.channels == 1:
            return [sum(means) / len(means)], [sum(stds) / len(stds)]
        return means, stds

    @property
    def target_type(self) -> str:
        """Which target the data set gives, as in `DataFacts.target`."""
        raise AssertionError(f"{type(self).__name__} must say its target")

    @property
    def flip_rate(self) -> float:
        """How often training images are mirrored."""
        if self.flip is not None:
            return self.flip
        return 0.0 if self.target_type in IN_WORDS else 0.5

    @property
    def scales(self) -> tuple[float, float]:
        """What `scale` says, or what is usual for this `crop`."""
        return self.scale or ((0.1, 2.0) if self.crop == "scale_jitter" else (0.3, 1.0))

    @model_validator(mode="after")
    def _consistent(self) -> PipelineSettings:
        if self.resize is not None and self.fit != "crop":
            raise ValueError(f"resize: has no meaning with fit: {self.fit}; leave it out, or write fit: crop")
        if self.resize is not None and self.resize < min(self.height_width):
            raise ValueError(f"resize: {self.resize} pixels leave nothing to crop {self.size} from: make it larger")
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != self.channels:
                raise ValueError(f"{name}: give {self.channels} numbers, one a channel, not {len(given)}")
        if self.scale is not None and self.crop == "none":
            raise ValueError("scale: has no meaning with crop: none; choose a crop, or leave it out")
        low, high = self.scales
        if not 0 < low <= high:
            raise ValueError("scale: write the smaller number first, above 0")
        if self.crop == "random_resized" and high > 1:
            raise ValueError("scale: a crop cannot keep more than the whole picture (1.0)")
        return self

    def facts_with(self, classes: int | None) -> DataFacts:
        """What these settings say, with the number of classes."""
        height, width = self.height_width
        return DataFacts(
            height=height,
            width=width,
            channels=self.channels,
            target=self.target_type,
            classes=classes,
            licence=self.licence,
        )
