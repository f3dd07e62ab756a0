"""Settings of the image data sets: where they are, and the pipeline that they share. Sizes are in pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from reorder_core import DataFacts, DatasetSettings, Problem, RunFacts, UsageError

Side = Annotated[int, Field(ge=1, le=8192)]
Probability = Annotated[float, Field(ge=0, le=1)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


class PipelineSettings(DatasetSettings):
    """From a picture in a file to a normalised image. The defaults are the paper's: resize, centre crop, flip."""

    size: Side | tuple[Side, Side] = 224
    """side of the images after cropping, or [height, width]"""
    resize: Side | None = 256
    """the shorter side before cropping; null where pictures are only brought to `size`"""
    channels: Literal[1, 3] = 3
    """3: RGB, 1: grey; pictures are converted"""
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
        """(height, width) of the images after cropping."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, standard deviation) of each channel, pixels from 0 to 1."""
        means, stds = self.mean or list(IMAGENET_MEAN), self.std or list(IMAGENET_STD)
        if self.channels == 1:
            return (sum(means) / len(means),), (sum(stds) / len(stds),)
        return tuple(means), tuple(stds)

    @model_validator(mode="after")
    def _consistent(self) -> PipelineSettings:
        if self.resize is not None and self.resize < min(self.height_width):
            raise ValueError(f"resize: {self.resize} pixels leave nothing to crop {self.size} from: make it larger")
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != self.channels:
                raise ValueError(f"{name}: give {self.channels} numbers, one a channel, not {len(given)}")
        if self.scale[0] > self.scale[1] or self.scale[1] == 0:
            raise ValueError("scale: write the smaller share first, and the larger above 0")
        if self.rand_augment is not None and self.color_jitter > 0:
            raise ValueError("color_jitter: rand_augment takes its place; leave one of them out")
        if self.rand_augment is not None and self.channels == 1:
            raise ValueError("rand_augment: needs RGB images; set channels: 3 or leave it out")
        return self

    def facts_of(self, classes: int, train: int | None = None, validation: int | None = None) -> DataFacts:
        """What these settings say, with what a data set adds to it."""
        height, width = self.height_width
        return DataFacts(
            height=height,
            width=width,
            channels=self.channels,
            classes=classes,
            train=train,
            validation=validation,
            licence=self.licence,
        )


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
            return self.facts_of(self.classes)
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UsageError(f"root: there is no folder {root}; set data.root to the folder of your images")
        return self.facts_of(len(class_folders(self.folder("train"), "train")))


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
        return self.facts_of(*KNOWN[self.dataset])

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
        return self.facts_of(self.classes)
