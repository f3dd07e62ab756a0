"""Images as numbers in [0, 1], a few at a time: of any folder, or of a data set's split, which normalises as it likes.

What commands rest on that look at images and train nothing (`reorder prior`, say). B images, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from reorder_core.errors import RunError, UsageError, one_line
from reorder_core.interfaces.dataset import Split, evenly

Size = tuple[int, int]  # height, width
Unreadable = Literal["skip", "stop"]
#: How images are read one after the other, or by several threads: `map`, or that of a pool.
Map = Callable[..., Any]
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
AT_ONCE = 64  # images held as pixels at a time
_HEADERS = 256  # files of a folder whose sizes are compared before anything starts
_RANGE = 1024  # images of a split whose pixels give the range of each channel
_GREY = frozenset({"1", "L", "LA", "I;16"})
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises


@contextmanager
def pictures_error(name: object) -> Iterator[None]:
    """Inside, what Pillow raises for a broken picture becomes a `RunError` that names it."""
    try:
        yield
    except _UNREADABLE as error:
        raise RunError(f"the image {name} cannot be read ({one_line(error)}): replace or remove it") from error


@dataclass(frozen=True)
class Loaded:
    """images_BCHW: float32 in [0, 1]. number_B: which images these are. skipped: what could not be read, and why."""

    images_BCHW: NDArray[np.float32]
    number_B: NDArray[np.int64]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.number_B)


class Pixels(Protocol):
    """Numbered images of one size."""

    def __len__(self) -> int: ...

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """The images with these numbers. Raises `RunError` for an unreadable one, where it is not to be skipped."""
        ...


@dataclass(frozen=True)
class MemoryImages:
    """Images [B, C, H, W] in [0, 1] that lie in memory."""

    images_BCHW: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images_BCHW)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        number_B = np.asarray(numbers, dtype=np.int64)
        return Loaded(self.images_BCHW[number_B], number_B)


class FolderImages:
    """The images below a folder, nested or not, numbered by their sorted paths. Hidden files and folders are left out.

    size: (height, width) of all. channels: 1 where all images looked at are grey, else 3; the others are converted.
    Raises `UsageError` for a folder that is not there or holds no image that can be read, and for sizes that differ
    without `resize`, which covers (height, width) and crops at the centre.
    """

    def __init__(self, root: Path, resize: Size | None = None, unreadable: Unreadable = "skip") -> None:
        if not root.is_dir():
            raise UsageError(f"--data: there is no folder {root}: name the folder that holds your images")
        self.root, self.resize, self.unreadable = root, resize, unreadable
        self.paths = sorted(_images_below(root))
        if not self.paths:
            known = ", ".join(sorted(SUFFIXES))
            raise UsageError(f"--data: {root} holds no image ({known}): name the folder that holds your images")
        native, self.channels = self._look()
        self.size = resize or native

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """Read, converted, resized if asked for. An image of another size ends the run: it is no broken file."""
        found = list(mapping(self._read, numbers))
        good = [(number, each) for number, each in zip(numbers, found, strict=True) if not isinstance(each, str)]
        skipped = tuple(each for each in found if isinstance(each, str))
        if not good:
            return Loaded(np.zeros((0, self.channels, *self.size), np.float32), np.zeros(0, np.int64), skipped)
        return Loaded(np.stack([each for _, each in good]), np.array([number for number, _ in good]), skipped)

    def _read(self, number: int) -> NDArray[np.float32] | str:
        """The pixels, float32 [C, H, W] in [0, 1]; or why there are none."""
        path = self.paths[number]
        try:
            with Image.open(path) as picture:
                picture.load()
                pixels_CHW = _pixels(picture, self.channels, self.resize)
        except _UNREADABLE as error:
            reason = f"the image {path} cannot be read ({' '.join(str(error).split())})"
            if self.unreadable == "stop":
                raise RunError(f"{reason}: replace or remove it, or pass --unreadable skip") from error
            return reason
        if pixels_CHW.shape[1:] != self.size:
            raise RunError(_differ(path, pixels_CHW.shape[1:], self.size))
        return pixels_CHW

    def _look(self) -> tuple[Size, int]:
        """((height, width), channels) by the headers of some images, evenly spread, the first one among them."""
        size: Size | None = None
        channels = 1
        for path in self.paths[:: max(1, len(self.paths) // _HEADERS)]:
            try:
                with Image.open(path) as picture:
                    found, mode = (picture.height, picture.width), picture.mode
            except _UNREADABLE:
                continue  # met again when it is read, and answered as the setting says
            channels = channels if mode in _GREY else 3
            if size is None:
                size = found
            elif found != size and self.resize is None:
                raise UsageError(_differ(path, found, size))
        if size is None:
            raise UsageError(f"--data: no image of {self.root} can be read, {self.paths[0]} first: name another folder")
        return size, channels


def _images_below(root: Path) -> Iterator[Path]:
    """A link that leads back up is followed once."""
    seen: set[Path] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [each for each in inner if not each.startswith(".")]
        shown = (Path(folder, name) for name in names if not name.startswith("."))
        yield from (path for path in shown if path.suffix.lower() in SUFFIXES)


def _differ(path: Path, found: Sequence[int], expected: Size) -> str:
    return (
        f"the image {path} has {found[0]}x{found[1]} pixels and others have {expected[0]}x{expected[1]}: "
        f"pass --image-size to bring all to one size"
    )


def _pixels(picture: Image.Image, channels: int, resize: Size | None) -> NDArray[np.float32]:
    """[C, H, W] in [0, 1]."""
    if picture.mode == "I;16":
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    picture = picture.convert("L" if channels == 1 else "RGB")
    if resize is not None:
        picture = ImageOps.fit(picture, resize[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@dataclass(frozen=True)
class UnitRange:
    """The lowest and highest value of each channel, float32 [C], that become 0 and 1.

    A data set normalises its images channel by channel, as it likes; where every channel of the images looked at holds
    both black and full ink, this is that normalisation undone.
    """

    low_C: NDArray[np.float32]
    high_C: NDArray[np.float32]

    @classmethod
    def of(cls, batches: Iterable[NDArray[np.float32]]) -> UnitRange:
        """Of all images [B, C, H, W] of some batches, of which there must be one at least."""
        lows, highs = zip(*((each.min(axis=(0, 2, 3)), each.max(axis=(0, 2, 3))) for each in batches), strict=True)
        return cls(np.min(lows, axis=0), np.max(highs, axis=0))

    def apply(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The images with each channel's range brought to [0, 1]; what lies outside of it is clipped."""
        span_C = self.high_C - self.low_C
        span_C = np.where(span_C > 0, span_C, 1).astype(np.float32)
        unit_BCHW = (images_BCHW - self.low_C[:, None, None]) / span_C[:, None, None]
        return np.clip(unit_BCHW, 0, 1).astype(np.float32, copy=False)


class SplitImages:
    """The images of a split as its first epoch shows them, brought to [0, 1] by `UnitRange`.

    range_of: the split whose images, evenly spread, give the range, this one where left out. Raises `UsageError` where
    none of them can be read.
    """

    def __init__(self, split: Split, unreadable: Unreadable = "skip", range_of: SplitImages | None = None) -> None:
        self.split, self.unreadable = split, unreadable
        self.unit: UnitRange = self._found_range() if range_of is None else range_of.unit

    def __len__(self) -> int:
        return len(self.split)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """In the caller's thread: a data set's augmentation may seed global generators."""
        found = self._raw(numbers)
        images_BCHW = self.unit.apply(found.images_BCHW) if len(found) else found.images_BCHW
        return Loaded(images_BCHW, found.number_B, found.skipped)

    def _raw(self, numbers: Sequence[int]) -> Loaded:
        """Normalised as the data set does; where a batch holds an unreadable image, one by one."""
        try:
            images_BCHW = self.split.load(list(numbers), 0).images_BCHW.numpy()
            return Loaded(np.asarray(images_BCHW, np.float32), np.asarray(numbers, dtype=np.int64))
        except RunError as error:
            if self.unreadable == "stop":
                raise
            if len(numbers) == 1:
                return Loaded(np.zeros((0, 1, 1, 1), np.float32), np.zeros(0, np.int64), (str(error),))
        return joined([self._raw([number]) for number in numbers])

    def _found_range(self) -> UnitRange:
        some = evenly(len(self.split), _RANGE)
        readable = [each.images_BCHW for part in chunks(some, AT_ONCE) if len(each := self._raw(part))]
        if not readable:
            raise UsageError(f"none of {len(some)} images can be read: look at the data set")
        return UnitRange.of(readable)


def joined(parts: Sequence[Loaded]) -> Loaded:
    """Several lots of images as one, in their order."""
    skipped = tuple(reason for part in parts for reason in part.skipped)
    full = [part for part in parts if len(part)] or list(parts[:1])
    return Loaded(
        np.concatenate([part.images_BCHW for part in full]), np.concatenate([part.number_B for part in full]), skipped
    )


def chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The numbers, `size` at a time."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
