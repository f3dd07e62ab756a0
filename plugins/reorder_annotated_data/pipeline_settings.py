"""Settings that all data sets of this room share: from a picture to a normalised image. Sizes are in pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reorder_core.image_settings import ImageSettings, Probability, Side

Name = Annotated[str, Field(min_length=1)]
SplitName = Literal["train", "validation"]
#: Targets in words: mirroring an image would make "left" wrong.
IN_WORDS = ("captions", "questions")


class PipelineSettings(ImageSettings):
    """How pictures, and their boxes and masks with them, become images of one size."""

    root: Name
    """the folder that everything lies in; ~ is your home"""
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
        if self.scale is not None and self.crop == "none":
            raise ValueError("scale: has no meaning with crop: none; choose a crop, or leave it out")
        low, high = self.scales
        if not 0 < low <= high:
            raise ValueError("scale: write the smaller number first, above 0")
        if self.crop == "random_resized" and high > 1:
            raise ValueError("scale: a crop cannot keep more than the whole picture (1.0)")
        return self
