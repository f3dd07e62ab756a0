"""The tokenizer `codes`: codes that were made before, looked up by the images' numbers.

I images of the file, B images asked for, C channels, H W pixels, N patches.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, UsageError
from reorder_tokenizers.interface import Progress
from reorder_tokenizers.settings import CodesSettings

_ROWS_AT_ONCE = 65_536


class Codes:
    """`tokens` wants the images' numbers (`needs_numbers`): row i of the file belongs to image i.

    That is the i-th image of the split, or the i-th path of the folder, sorted. Raises `UsageError` for a file that is
    not there, holds no whole numbers, or belongs to another grid. An .npy file stays on the disk.
    """

    fitted = True
    needs_numbers = True

    def __init__(self, settings: CodesSettings, context: Context) -> None:
        self.path, self.context = settings.path, context
        self._codes_IN = _shaped(_array(settings.path, settings.array), settings.path, context)
        lowest, highest = _range(self._codes_IN)
        self.codes = highest + 1 if settings.codes is None else settings.codes
        if lowest < 0 or highest >= self.codes:
            raise UsageError(
                f"{settings.path} holds codes from {lowest} to {highest}, where 0 to {self.codes - 1} are due: "
                f"correct the file, or the setting 'codes'"
            )

    def __len__(self) -> int:
        return len(self._codes_IN)

    def fit(self, images_BCHW: NDArray[np.float32], progress: Progress | None = None) -> None:
        """Does nothing."""

    def tokens(
        self, images_BCHW: NDArray[np.float32] | None, numbers: Sequence[int] | NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """The codes [B, N] of the images with these numbers, int64 [B]; the images themselves are not looked at.

        Raises `UsageError` without numbers, and for one that the file does not hold.
        """
        if numbers is None:
            raise UsageError(
                f"the codes of {self.path} are found by the images' numbers, and none were given: "
                f"pass tokens(images, numbers=…)"
            )
        number_B = np.asarray(numbers, dtype=np.int64)
        if images_BCHW is not None and len(images_BCHW) != len(number_B):
            raise UsageError(f"{len(number_B)} numbers do not belong to {len(images_BCHW)} images: give one an image")
        if number_B.size and (number_B.min() < 0 or number_B.max() >= len(self)):
            outside = number_B[(number_B < 0) | (number_B >= len(self))][0]
            raise UsageError(
                f"{self.path} holds the codes of {len(self)} images, and image {outside} is none of them: "
                f"give a file of all images"
            )
        return np.asarray(self._codes_IN[number_B], dtype=np.int64)


def _array(path: Path, name: str | None) -> NDArray[Any]:
    """The array of the file; an .npy file is mapped, not read."""
    place = path.expanduser()
    try:
        if place.suffix != ".npz":
            if name is not None:
                raise UsageError(f"array: {path} is no .npz file, and holds one array without a name: leave it out")
            return np.asanyarray(np.load(place, mmap_mode="r", allow_pickle=False))
        with np.load(place, allow_pickle=False) as found:
            names = list(found.files)
            if name is None and len(names) == 1:
                name = names[0]
            if name not in names:
                held = ", ".join(names) or "none"
                raise UsageError(f"{path} holds these arrays: {held}: name one of them with the setting 'array'")
            return np.asarray(found[name])
    except OSError as error:
        raise UsageError(f"the codes {path} cannot be read ({error.strerror or error}): give another file") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is no .npy or .npz file of numbers ({error}): save it with numpy.save") from error


def _shaped(found: NDArray[Any], path: Path, context: Context) -> NDArray[Any]:
    """The codes as [I, N]."""
    grid = context.grid
    if found.dtype.kind not in "iu":
        raise UsageError(f"{path} holds {found.dtype} where codes are whole numbers: save them as integers")
    if found.shape[1:] not in ((grid.size,), (grid.rows, grid.columns)) or not len(found):
        raise UsageError(
            f"{path} holds an array of shape {list(found.shape)}, where [images, {grid.size}] is due for a grid of "
            f"{grid}: give codes that were made for it"
        )
    return found.reshape(len(found), grid.size)


def _range(codes_IN: NDArray[Any]) -> tuple[int, int]:
    """(lowest, highest) code, a part of the file at a time."""
    parts = [codes_IN[start : start + _ROWS_AT_ONCE] for start in range(0, len(codes_IN), _ROWS_AT_ONCE)]
    return min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
