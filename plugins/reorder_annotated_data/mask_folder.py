"""The data set `mask_folder`: images, and PNGs that hold the class of each pixel (ADE20K, CamVid, Cityscapes).

H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reorder_annotated_data.pipeline_settings import SplitName
from reorder_annotated_data.settings import MaskFolderSettings
from reorder_annotated_data.split import require_files, splits
from reorder_core import Context, RunError, UsageError
from reorder_core.errors import one_line
from reorder_core.interfaces.targets import IGNORED

#: Pillow's names for pictures whose pixels are numbers and not colours.
_NUMBERS = ("1", "L", "P", "I", "I;16")


class MaskSource:
    """The images of a split, sorted by name, each with the file of its mask."""

    def __init__(self, settings: MaskFolderSettings, split: SplitName, classes: int) -> None:
        folder, masks = settings.folder(split, "images"), settings.folder(split, "masks")
        require_files((), folder, f"{split}_images")
        found = sorted(path.relative_to(folder) for path in folder.rglob(f"*{settings.image_suffix}") if path.is_file())
        if not found:
            raise UsageError(f"{split}_images: {folder} holds no *{settings.image_suffix}: set `image_suffix`")
        self._images = [folder / path for path in found]
        stems = [path.with_name(path.name.removesuffix(settings.image_suffix)) for path in found]
        self._masks = [masks / stem.with_name(stem.name + settings.mask_suffix) for stem in stems]
        named = (
            (mask, f"{split}_masks: the image {image} has no mask")
            for image, mask in zip(self._images, self._masks, strict=True)
        )
        require_files(named, masks, f"{split}_masks")
        self._classes = classes
        self._ignore = settings.ignore
        self._offset = settings.offset

    def __len__(self) -> int:
        return len(self._images)

    def path(self, index: int) -> Path:
        """The image's file."""
        return self._images[index]

    def size(self, index: int) -> tuple[int, int] | None:
        """That of the mask, by which a picture of another size is found out."""
        with Image.open(self._masks[index]) as opened:
            return opened.height, opened.width

    def origin(self, index: int) -> str:
        """The mask's file."""
        return f"its mask {self._masks[index]}"

    def target(self, index: int) -> Tensor:
        """The class of each pixel, uint8 [H, W]; `IGNORED` where none is known."""
        path = self._masks[index]
        value_HW = _values(path)
        unknown_HW = np.isin(value_HW, self._ignore)
        if self._offset:
            unknown_HW |= value_HW == 0
        class_HW = value_HW - self._offset
        bad_HW = ~unknown_HW & (class_HW >= self._classes)
        if bad_HW.any():
            row, column = map(int, np.argwhere(bad_HW)[0])
            raise RunError(
                f"the mask {path} holds {int(value_HW[row, column])} in row {row}, column {column}, and there are "
                f"{self._classes} classes: set data.classes, data.ignore or data.offset"
            )
        class_HW[unknown_HW] = IGNORED
        return torch.from_numpy(class_HW.astype(np.uint8))


def _values(path: Path) -> np.ndarray:
    """int64 [H, W]; of a palette picture the numbers, not the colours."""
    try:
        with Image.open(path) as opened:
            if opened.mode not in _NUMBERS:
                raise RunError(
                    f"the mask {path} is a picture of colours ({opened.mode}): its pixels must be class numbers, as in "
                    f"a grey or palette PNG"
                )
            return np.asarray(opened).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as problem:
        raise RunError(f"the mask {path} cannot be read ({one_line(problem)}): replace it") from problem


class MaskFolder:
    """Raises `UsageError` for missing folders, an image without a mask, a missing file of names."""

    in_memory = False

    def __init__(self, settings: MaskFolderSettings, context: Context) -> None:
        self.facts = settings.describe()
        self.classes = settings.names()
        self.train, self.validation = splits(
            settings,
            context,
            MaskSource(settings, "train", len(self.classes)),
            MaskSource(settings, "validation", len(self.classes)),
        )
