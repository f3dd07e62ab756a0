"""Data sets by name, opened by timm's `create_dataset`: torchvision's, and others that can be read in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from timm.data.dataset_factory import create_dataset

from reorder_core import Context, UsageError
from reorder_core.errors import one_line
from reorder_core.randomness import augmentation_seed
from reorder_image_data.pipeline import training_transform, validation_transform
from reorder_image_data.settings import PipelineSettings, TimmSettings, TorchvisionSettings
from reorder_image_data.split import PictureSplit


class NamedSource:
    """Pictures of a data set that timm opened; `label` says which, for messages."""

    def __init__(self, data: Any, label: str) -> None:
        # timm's own ImageDataset skips a broken picture and hands out the next: read below it.
        self._data = getattr(data, "reader", data)
        self._label = label

    def __len__(self) -> int:
        return len(self._data)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The picture, decoded, and the number of its class."""
        picture, target = self._data[index]
        if not isinstance(picture, Image.Image):
            with picture, Image.open(picture) as opened:
                opened.load()
            picture = opened
        return picture, int(target)

    def name(self, index: int) -> str:
        """The data set, the split and the number."""
        return f"{self._label}, number {index}"


def open_named(name: str, root: str | None, split: str, download: bool) -> Any:
    """timm's data set. Raises `UsageError` where it is not there, or where a library for it is missing."""
    folder = None if root is None else str(Path(root).expanduser())
    try:
        return create_dataset(name, root=folder, split=split, download=download)
    except ImportError as problem:
        raise UsageError(f"dataset: {name} needs a library that is not installed ({problem}): install it") from problem
    except (RuntimeError, OSError, ValueError, AssertionError) as problem:
        reason = one_line(problem)
        hint = "" if download else "; set download: true to fetch it, or root to where it is"
        raise UsageError(f"dataset: {name} ({split}) cannot be opened below {folder} ({reason}){hint}") from problem


class _Named:
    """Both splits of a data set with the shared pipeline."""

    in_memory = False

    def __init__(
        self, settings: PipelineSettings, context: Context, name: str, splits: tuple[str, str], download: bool
    ) -> None:
        self.facts = settings.describe()
        root = getattr(settings, "root", None)
        train, validation = (open_named(name, root, split, download) for split in splits)
        self.classes = self._class_names(train, self.facts.classes or 0)
        self.train = PictureSplit(
            NamedSource(train, f"{name} ({splits[0]})"),
            training_transform(settings),
            settings.channels,
            settings.height_width,
            augmentation_seed(settings.seed, context),
        )
        self.validation = PictureSplit(
            NamedSource(validation, f"{name} ({splits[1]})"),
            validation_transform(settings),
            settings.channels,
            settings.height_width,
        )

    @staticmethod
    def _class_names(data: Any, count: int) -> tuple[str, ...]:
        """The data set's own names where it has one for each class (the first of several), else the numbers."""
        names = [name if isinstance(name, str) else name[0] for name in getattr(data, "classes", ())]
        return tuple(names) if len(names) == count else tuple(str(number) for number in range(count))


class TorchvisionData(_Named):
    """A data set of torchvision; nothing is fetched unless `download` says so."""

    def __init__(self, settings: TorchvisionSettings, context: Context) -> None:
        super().__init__(settings, context, f"torch/{settings.dataset}", ("train", "val"), settings.download)


class TimmData(_Named):
    """A data set by timm's name for it."""

    def __init__(self, settings: TimmSettings, context: Context) -> None:
        super().__init__(settings, context, settings.dataset, (settings.train, settings.validation), settings.download)
