"""The data set `image_folder`: {train,val}/<class>/*.jpg, listed by timm's reader."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from timm.data.dataset_factory import create_dataset

from reorder_core import Context, UsageError
from reorder_core.randomness import augmentation_seed
from reorder_image_data.pipeline import training_transform, validation_transform
from reorder_image_data.settings import ImageFolderSettings, class_folders
from reorder_image_data.split import PictureSplit


class FolderSource:
    """The pictures below a folder, sorted by name. A picture's class is the folder directly below `root` it lies in."""

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        self._samples: list[tuple[str, int]] = []
        for number, name in enumerate(classes):
            # One reader a class: timm's own labels are leaf folders, and drop empty ones without a word.
            reader = create_dataset("", root=str(root / name), search_split=False).reader
            self._samples += [(path, number) for path, _ in reader.samples]

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The picture, decoded, and the number of its class."""
        path, target = self._samples[index]
        with Image.open(path) as picture:
            picture.load()
        return picture, target

    def name(self, index: int) -> str:
        """The path of its file."""
        return self._samples[index][0]


class ImageFolder:
    """Raises `UsageError` for a missing folder, an empty class, trees that differ, another number of classes."""

    in_memory = False

    def __init__(self, settings: ImageFolderSettings, context: Context) -> None:
        root = Path(settings.root).expanduser()
        if not root.is_dir():
            raise UsageError(f"root: there is no folder {root}; set data.root to the folder of your images")
        self.classes = class_folders(settings.folder("train"), "train")
        _require_same(self.classes, class_folders(settings.folder("validation"), "validation"), settings)
        if settings.classes not in (None, len(self.classes)):
            raise UsageError(
                f"classes: the recipe says {settings.classes}, and {settings.folder('train')} holds "
                f"{len(self.classes)} class folders: correct one of them"
            )
        self.facts = settings.describe()
        self.train = PictureSplit(
            FolderSource(settings.folder("train"), self.classes),
            training_transform(settings),
            settings.channels,
            settings.height_width,
            augmentation_seed(settings.seed, context),
        )
        self.validation = PictureSplit(
            FolderSource(settings.folder("validation"), self.classes),
            validation_transform(settings),
            settings.channels,
            settings.height_width,
        )


def _require_same(train: tuple[str, ...], validation: tuple[str, ...], settings: ImageFolderSettings) -> None:
    if train == validation:
        return
    lone = sorted(set(train) ^ set(validation))
    where = settings.folder("train" if lone[0] in train else "validation")
    more = f" and {len(lone) - 1} more" if len(lone) > 1 else ""
    raise UsageError(
        f"validation: training and validation images must have the same class folders; "
        f"'{lone[0]}'{more} stands only in {where}"
    )
