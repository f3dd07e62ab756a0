"""Settings of the image data sets: where they are, and the pipeline that they share. Sizes are in pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from reorder_core import DataFacts, Problem, RunFacts, UsageError
from reorder_core.image_settings import ImageSettings, Probability, Side

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


class PipelineSettings(ImageSettings):
    """From a picture in a file to a normalised image. The defaults are the paper's: resize, centre crop, flip."""

    resize: Side | None = 256
    """the shorter side before cropping; null where pictures are only brought to `size`"""
    crop: Literal["centre", "random_resized"] = "centre"
    """how training images are cropped; validation images are always cropped at the centre"""
    scale: tuple[Probability, Probability] = (0.08, 1.0)
    """crop: random_resized only: the share of the picture's area that a crop keeps, from – to"""
    flip: Probability = 0.5
    """how often training images are mirrored left to right"""
    vertical_flip: Probability = 0.0
    """how often training images are mirrored top to bottom (satellite images, say)"""
    color_jitter: float = Field(default=0.0, ge=0)
    """strength of random brightness, contrast and saturation (0: off); `rand_augment` takes its place where given"""
    rand_augment: str | None = Field(default=None, pattern="^rand-.+")
    """timm's rand-augment, written as timm does: rand-m9-mstd0.5-inc1"""
    random_erasing: Probability = 0.0
    """how often a random rectangle of a training image is filled with noise"""
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bicubic"
    """how pictures are resized"""

    @model_validator(mode="after")
    def _consistent(self) -> PipelineSettings:
        if self.resize is not None and self.resize < min(self.height_width):
            raise ValueError(f"resize: {self.resize} pixels leave nothing to crop {self.size} from: make it larger")
        if self.scale[0] > self.scale[1] or self.scale[1] == 0:
            raise ValueError("scale: write the smaller share first, and the larger above 0")
        if self.rand_augment is not None and self.color_jitter > 0:
            raise ValueError("color_jitter: rand_augment takes its place; leave one of them out")
        if self.rand_augment is not None and self.channels == 1:
            raise ValueError("rand_augment: needs RGB images; set channels: 3 or leave it out")
        return self


def class_folders(folder: Path, key: str) -> tuple[str, ...]:
    """The names of the class folders in `folder`, sorted. Raises `UsageError` naming the setting `key` for no folder.

    The order is the order of the class numbers (of the strings: 10 comes before 9).
    """
    if not folder.is_dir():
        raise UsageError(f"{key}: there is no folder {folder}; images are expected in {folder}/<class>/*.jpg")
    names = tuple(sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")))
    if not names:
        raise UsageError(f"{key}: {folder} holds no class folders; images are expected in {folder}/<class>/*.jpg")
    for name in names:
        if not any(each.suffix.lower() in IMAGE_SUFFIXES for each in (folder / name).rglob("*")):
            raise UsageError(
                f"{key}: the class folder {folder / name} holds no image (.jpg, .jpeg, .png): fill it or remove it"
            )
    return names


class ImageFolderSettings(PipelineSettings):
    """Images in folders named by their class, one such tree to train and one to validate."""

    root: str = Field(min_length=1)
    """the folder that holds both trees; ~ is your home"""
    train: str = "train"
    """the folder in `root` with the training images"""
    validation: str = "val"
    """the folder in `root` with the validation images"""
    classes: int | None = Field(default=None, ge=2)
    """how many classes there are; with it a recipe can be checked where the images are not. Counted where left out"""

    def folder(self, split: Literal["train", "validation"]) -> Path:
        """Where the images of a split are."""
        return Path(self.root).expanduser() / (self.train if split == "train" else self.validation)

    def describe(self) -> DataFacts:
        """Raises `UsageError` where `classes` is not given and the folder is missing or has an empty class."""
        if self.classes is not None:
            return self.facts_with(self.classes)
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UsageError(f"root: there is no folder {root}; set data.root to the folder of your images")
        return self.facts_with(len(class_folders(self.folder("train"), "train")))


KNOWN = {
    "cifar10": (10, 50_000, 10_000),
    "cifar100": (100, 50_000, 10_000),
    "mnist": (10, 60_000, 10_000),
    "fashion_mnist": (10, 60_000, 10_000),
    "kmnist": (10, 60_000, 10_000),
    "imagenet": (1000, 1_281_167, 50_000),
}


class TorchvisionSettings(PipelineSettings):
    """A data set of torchvision, read (and, if you say so, fetched) by torchvision."""

    dataset: Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist", "imagenet"]
    """its name"""
    root: str = Field(default="data", min_length=1)
    """the folder that torchvision keeps it in; ~ is your home"""
    download: bool = False
    """fetch it where it is missing (not for imagenet, which has to be got by hand)"""

    def describe(self) -> DataFacts:
        return self.facts_with(*KNOWN[self.dataset])

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.dataset == "imagenet" and self.download:
            yield Problem("download", "imagenet cannot be fetched: get it by hand and set `root`")


class TimmSettings(PipelineSettings):
    """A data set by the name that timm gives it. Only those that can be read in any order: hfds/… and torch/…"""

    dataset: str = Field(pattern="^(hfds|torch)/.+")
    """timm's name: hfds/<name on the hub>, or torch/<name in torchvision>"""
    root: str | None = None
    """the folder that it is kept in; the library's own where it is left out"""
    classes: int = Field(ge=2)
    """how many classes there are"""
    train: str = "train"
    """timm's name for the split to train on"""
    validation: str = "validation"
    """timm's name for the split to validate on"""
    download: bool = False
    """fetch it where it is missing"""

    @model_validator(mode="after")
    def _may_fetch(self) -> TimmSettings:
        if self.dataset.startswith("hfds/") and not self.download:
            raise ValueError("download: data sets of the hub are fetched when they are missing: set download: true")
        if self.dataset.startswith("torch/") and self.root is None:
            raise ValueError("root: name the folder that holds the data set")
        return self

    def describe(self) -> DataFacts:
        return self.facts_with(self.classes)
