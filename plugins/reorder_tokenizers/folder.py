"""Images of any folder, nested or not, read a few at a time.

B images, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reorder_core import RunError, UsageError

Size = tuple[int, int]
Unreadable = Literal["skip", "stop"]
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_LOOKED_AT = 256  # images whose sizes are compared before anything starts
_GREY = frozenset({"1", "L", "LA", "I;16"})
_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError)


class FolderImages:
    """The images below a folder, in the order of their sorted paths, as [C, H, W] in [0, 1].

    size: (height, width) of all. channels: 1 where the first image is grey, else 3; the others are converted.
    skipped: the numbers of images that could not be read, each once, however often it was tried.

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
        self.skipped: set[int] = set()
        native, self.channels = self._look()
        self.size = resize or native

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """The images with these numbers but for those that cannot be read, float32 [B, C, H, W].

        Raises `RunError` for an unreadable image where these are not to be skipped, for one of another size, and where
        nothing is left.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = [each for each in pool.map(self._read, numbers) if each is not None]
        if len(self.skipped) == len(self.paths):
            raise RunError(f"not one of {len(self.paths)} images in {self.root} can be read: look at {self.paths[0]}")
        return np.stack(found) if found else np.zeros((0, self.channels, *self.size), np.float32)

    def _read(self, number: int) -> NDArray[np.float32] | None:
        path = self.paths[number]
        try:
            with Image.open(path) as picture:
                picture.load()
                pixels = _pixels(picture, self.channels, self.resize)
        except _UNREADABLE as error:
            if self.unreadable == "stop":
                reason = " ".join(str(error).split())
                raise RunError(f"{path} cannot be read ({reason}): remove it, or pass --unreadable skip") from error
            self.skipped.add(number)
            return None
        if pixels.shape[1:] != self.size:
            raise RunError(_differ(path, pixels.shape[1:], self.size))
        return pixels

    def _look(self) -> tuple[Size, int]:
        """((height, width), channels) by the headers of some images, evenly spread, the first one among them."""
        size: Size | None = None
        channels = 3
        for path in self.paths[:: max(1, len(self.paths) // _LOOKED_AT)]:
            try:
                with Image.open(path) as picture:
                    found, mode = (picture.height, picture.width), picture.mode
            except _UNREADABLE:
                continue  # met again when it is read, and answered as the setting says
            if size is None:
                size, channels = found, 1 if mode in _GREY else 3
            elif found != size and self.resize is None:
                raise UsageError(_differ(path, found, size))
        if size is None:
            raise UsageError(f"--data: no image of {self.root} can be read, {self.paths[0]} first: name another folder")
        return size, channels


def _images_below(root: Path) -> Iterator[Path]:
    """Hidden files and folders are left out; a link that leads back up is followed once."""
    seen: set[Path] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(each for each in inner if not each.startswith("."))
        shown = (Path(folder, name) for name in names if not name.startswith("."))
        yield from (path for path in shown if path.suffix.lower() in SUFFIXES)


def _differ(path: Path, found: Sequence[int], expected: Size) -> str:
    return (
        f"{path} has {found[0]}x{found[1]} pixels and others have {expected[0]}x{expected[1]}: "
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
