"""What every data set of pictures in files can be told: the images' size and channels, and how they are normalised.

Sizes are in pixels. Free of torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reorder_core.settings import DataFacts, DatasetSettings

Side = Annotated[int, Field(ge=1, le=8192)]
Probability = Annotated[float, Field(ge=0, le=1)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageSettings(DatasetSettings):
    """From a picture in a file to a normalised image; how it gets there is the business of who derives from this."""

    size: Side | tuple[Side, Side] = 224
    """side of the images, or [height, width]"""
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
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, standard deviation) of each channel, pixels from 0 to 1."""
        means, stds = self.mean or list(IMAGENET_MEAN), self.std or list(IMAGENET_STD)
        if self.channels == 1:
            return (sum(means) / len(means),), (sum(stds) / len(stds),)
        return tuple(means), tuple(stds)

    @model_validator(mode="after")
    def _a_number_for_each_channel(self) -> ImageSettings:
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != self.channels:
                raise ValueError(f"{name}: give {self.channels} numbers, one a channel, not {len(given)}")
        return self

    def facts_with(
        self, classes: int | None, train: int | None = None, validation: int | None = None, target: str = "class"
    ) -> DataFacts:
        """What these settings say, with what a data set adds to it."""
        height, width = self.height_width
        return DataFacts(height, width, self.channels, target, classes, None, train, validation, self.licence)
