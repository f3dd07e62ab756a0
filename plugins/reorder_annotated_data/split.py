"""One split of annotated images, read one by one.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from reorder_annotated_data.pipeline import Pipeline
from reorder_annotated_data.pipeline_settings import PipelineSettings
from reorder_core import Batch, Context, RunError, UsageError
from reorder_core.pixels import pictures_error
from reorder_core.randomness import augmentation_seed, image_seed, own_randomness


class Source(Protocol):
    """Images and their targets by number; picklable, so that worker processes can read."""

    def __len__(self) -> int: ...

    def path(self, index: int) -> Path:
        """The image's file."""
        ...

    def size(self, index: int) -> tuple[int, int] | None:
        """(height, width) as the annotations have it; None where they do not say."""
        ...

    def origin(self, index: int) -> str:
        """Where the image's annotations are, in words that a person finds them by."""
        ...

    def target(self, index: int) -> Any:
        """The target, as it fits the picture in the file. Raises `RunError` naming a file that cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class AnnotatedSplit:
    """Reads, converts, transforms. seed None: nothing random is done, and no seeding either."""

    source: Source
    pipeline: Pipeline
    channels: int
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.source)

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The images with these numbers as they are in this epoch. Raises `RunError` naming an unreadable file."""
        images, targets = [], []
        with own_randomness() as seed:
            for index in map(int, indices):
                picture, target = self._picture(index), self.source.target(index)
                self._require_same_size(index, picture)
                if self.seed is not None:
                    seed(image_seed(self.seed, epoch, index))
                image_CHW, target = self.pipeline(picture, target)
                images.append(image_CHW)
                targets.append(target)
        together = torch.stack(targets) if targets and isinstance(targets[0], Tensor) else targets
        return Batch(torch.stack(images), together, torch.tensor([int(index) for index in indices]))

    def _picture(self, index: int) -> Image.Image:
        path = self.source.path(index)
        with pictures_error(path), Image.open(path) as opened:
            return opened.convert("RGB" if self.channels == 3 else "L")

    def _require_same_size(self, index: int, picture: Image.Image) -> None:
        shape = (picture.height, picture.width)
        said = self.source.size(index)
        if said is not None and said != shape:
            raise RunError(
                f"the image {self.source.path(index)} is {shape[1]}x{shape[0]} pixels, and {self.source.origin(index)} "
                f"is for {said[1]}x{said[0]}: replace the one or the other"
            )


class ListedSplit(AnnotatedSplit):
    """A split whose targets are known without any pixels."""

    __slots__ = ()

    def targets(self) -> Iterable[Any]:
        """The target of every image, in order."""
        return _Targets(self.source)


class BoxesSplit(AnnotatedSplit):
    """A split of boxes, which can be counted without any pixels."""

    __slots__ = ()

    def object_counts(self) -> Iterable[tuple[str, int]]:
        """The name and the number of objects of every image, crowds apart, before augmentation, which adds none."""
        source: Any = self.source
        counts: Iterable[tuple[str, int]] = source.object_counts()
        return counts


@dataclass(frozen=True, slots=True)
class _Targets:
    """Can be gone through more than once."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Any]:
        return (self.source.target(index) for index in range(len(self.source)))


def splits(
    settings: PipelineSettings, context: Context, train: Source, validation: Source
) -> tuple[AnnotatedSplit, AnnotatedSplit]:
    """Both splits of a data set, with the pipeline that its settings describe."""
    kind = {"boxes": BoxesSplit, "mask": AnnotatedSplit}.get(settings.target_type, ListedSplit)
    seed = augmentation_seed(settings.seed, context)
    return (
        kind(train, Pipeline.of(settings, training=True), settings.channels, seed),
        kind(validation, Pipeline.of(settings, training=False), settings.channels),
    )


def require_files(named: Iterable[tuple[Path, str]], folder: Path, key: str) -> None:
    """Raises `UsageError` where `folder` (the setting `key`) is not there, or a file is not; says who names it.

    named: each file, and the words that the error begins with. Folders are listed once: data sets have many files.
    """
    if not folder.is_dir():
        raise UsageError(f"{key}: there is no folder {folder}; set data.{key} and data.root to where the images are")
    there: dict[Path, set[str]] = {}
    for path, who in named:
        if path.parent not in there:
            listed = path.parent.iterdir() if path.parent.is_dir() else ()
            there[path.parent] = {each.name for each in listed}
        if path.name not in there[path.parent]:
            raise UsageError(f"{who}: there is no {path}; put it there, or take it out of the file")
