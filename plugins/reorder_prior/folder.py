"""Pictures of any folder, nested or not, as images of one size.

C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from reorder_core import Context, DataFacts, Grid, RunError, UsageError
from reorder_core.catalogue import Catalogue
from reorder_prior.images import Loaded, Map, Unreadable, chosen_numbers

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"})
_LOOKED_AT = 32  # pictures whose size is compared before anything is measured
_GREY = frozenset({"1", "L", "LA", "I;16"})


@dataclass(frozen=True)
class FolderImages:
    """The pictures below a folder, numbered by their sorted paths.

    size: (height, width) that they have, or are brought to where `resized`. context.channels: 3, or 1 where the first
    picture is grey; the others are converted.
    """

    label: str
    context: Context
    paths: Sequence[Path]
    size: tuple[int, int]
    resized: bool
    unreadable: Unreadable

    @classmethod
    def open(
        cls,
        root: Path,
        patch: int,
        size: tuple[int, int] | None,
        unreadable: Unreadable,
        seed: int,
        wanted: int | None = None,
    ) -> FolderImages:
        """List the pictures and look at some of them.

        Raises `UsageError` for a missing or empty folder, for sizes that differ, and for a patch that does not divide.
        """
        paths = _pictures(root)
        numbers = chosen_numbers(len(paths), wanted, seed)
        native, channels = _common_size([paths[each] for each in numbers[:: max(1, len(numbers) // _LOOKED_AT)]], size)
        height, width = size or native
        data = DataFacts(height, width, channels, train=len(paths))
        return cls(
            str(root),
            _context(Grid.of_image(height, width, patch), patch, data, seed),
            paths,
            (height, width),
            size is not None,
            unreadable,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, numbers: Sequence[int], mapping: Map = map) -> Loaded:
        """Read, converted, resized if asked for. A picture of another size ends the run: it is no broken file."""
        found = list(mapping(self._read, numbers))
        good = [(number, each) for number, each in zip(numbers, found, strict=True) if not isinstance(each, str)]
        skipped = tuple(each for each in found if isinstance(each, str))
        if not good:
            return Loaded(np.zeros((0, 1, 1, 1), np.float32), np.zeros(0, np.int64), skipped)
        return Loaded(np.stack([each for _, each in good]), np.array([number for number, _ in good]), skipped)

    def _read(self, number: int) -> NDArray[np.float32] | str:
        """The pixels, float32 [C, H, W] in [0, 1]; or why there are none."""
        path = self.paths[number]
        try:
            with Image.open(path) as picture:
                picture.load()
                pixels_HWC = _pixels(picture, self.context.channels, self.size if self.resized else None)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
            reason = f"the image {path} cannot be read ({' '.join(str(error).split())})"
            if self.unreadable == "stop":
                raise RunError(f"{reason}: replace or remove it, or pass --unreadable skip") from error
            return reason
        if pixels_HWC.shape[:2] != self.size:
            raise RunError(_differ(path, pixels_HWC.shape[:2], self.size))
        return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))


def _context(grid: Grid, patch: int, data: DataFacts, seed: int) -> Context:
    import torch

    catalogue = Catalogue.load()
    generator = torch.Generator().manual_seed(seed)
    return Context(
        grid=grid, patch=patch, channels=data.channels, data=data, generator=generator, builder=catalogue.build
    ).changed()


def _pictures(root: Path) -> list[Path]:
    """Every picture below the folder, sorted; hidden files and folders are left out."""
    if not root.is_dir():
        raise UsageError(f"--data: there is no folder {root}: name the folder that holds your images")
    found: list[Path] = []
    seen: set[Path] = set()  # a link may lead back up
    for folder, inner, names in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [each for each in inner if not each.startswith(".")]
        found += [
            Path(folder, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    if not found:
        known = ", ".join(sorted(SUFFIXES))
        raise UsageError(f"--data: {root} holds no image ({known}): name the folder that holds your images")
    return sorted(found)


def _common_size(paths: Sequence[Path], size: tuple[int, int] | None) -> tuple[tuple[int, int], int]:
    """((height, width), channels) of the pictures that can be read. Raises `UsageError` where two sizes differ."""
    native: tuple[int, int] | None = None
    channels = 3
    for path in paths:
        try:
            with Image.open(path) as picture:
                found, mode = (picture.height, picture.width), picture.mode
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        if native is None:
            native, channels = found, 1 if mode in _GREY else 3
        elif found != native and size is None:
            raise UsageError(_differ(path, found, native))
    if native is None:
        raise UsageError(f"--data: not one of {len(paths)} images looked at can be read, {paths[0]} first")
    return native, channels


def _differ(path: Path, found: tuple[int, ...], expected: tuple[int, int]) -> str:
    return (
        f"the image {path} has {found[0]}x{found[1]} pixels and others have {expected[0]}x{expected[1]}: "
        f"pass --image-size to bring all to one size"
    )


def _pixels(picture: Image.Image, channels: int, size: tuple[int, int] | None) -> NDArray[np.float32]:
    """[H, W, C] in [0, 1]; with a size, resized to cover it (bicubic) and cropped at the centre."""
    if picture.mode == "I;16":
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    converted = picture.convert("L" if channels == 1 else "RGB")
    if size is not None:
        converted = ImageOps.fit(converted, (size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = np.asarray(converted, dtype=np.float32) / np.float32(255)
    return pixels[:, :, None] if channels == 1 else pixels
