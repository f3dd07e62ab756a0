"""The images of a recipe's data set, brought to [0, 1].

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reorder_core import RunError, Split
from reorder_tokenizers.folder import Unreadable
from reorder_tokenizers.source import Part, batches

_LOOKED_AT = 1024  # images whose pixels give the range of each channel
_AT_ONCE = 64


@dataclass(frozen=True)
class _Raw:
    """A split's images as its first epoch shows them, normalised however the data set does."""

    split: Split
    unreadable: Unreadable
    skipped: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.split)

    def read(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        try:
            return np.asarray(self.split.load(list(numbers), 0).images_BCHW.numpy(), np.float32)
        except RunError:
            if self.unreadable == "stop":
                raise
            if len(numbers) == 1:
                self.skipped.add(int(numbers[0]))
                return np.zeros((0, 1, 1, 1), np.float32)
        parts = [found for number in numbers if len(found := self.read([number]))]
        if len(self.skipped) == len(self):
            raise RunError(f"not one of {len(self)} images can be read: look at the data set")
        return np.concatenate(parts) if parts else np.zeros((0, 1, 1, 1), np.float32)


class _Range(NamedTuple):
    """The lowest value of each channel, and how far the highest lies above it, float32 [C, 1, 1]."""

    low_C11: NDArray[np.float32]
    span_C11: NDArray[np.float32]


class SplitImages:
    """Each channel's lowest and highest value become 0 and 1; what lies outside is clipped.

    A data set normalises as it likes. Where each channel of the images looked at holds both black and full ink, this
    is that normalisation undone. range_of: the split whose first images give the range, this one where left out.
    """

    def __init__(self, split: Split, unreadable: Unreadable = "skip", range_of: SplitImages | None = None) -> None:
        self._raw = _Raw(split, unreadable)
        self.skipped = self._raw.skipped
        self._range: _Range = self._found_range() if range_of is None else range_of._range

    def __len__(self) -> int:
        return len(self._raw)

    def read(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """float32 [B, C, H, W]. Raises `RunError` for an unreadable image where these are not to be skipped."""
        images_BCHW = self._raw.read(numbers)
        if not len(images_BCHW):
            return images_BCHW
        unit_BCHW: NDArray[np.float32] = (images_BCHW - self._range.low_C11) / self._range.span_C11
        return np.clip(unit_BCHW, 0, 1).astype(np.float32, copy=False)

    def _found_range(self) -> _Range:
        first = Part(self._raw, range(min(_LOOKED_AT, len(self._raw))))
        ends = [(part.min(axis=(0, 2, 3)), part.max(axis=(0, 2, 3))) for part in batches(first, _AT_ONCE)]
        if not ends:
            raise RunError(f"none of the first {len(first)} images can be read: look at the data set")
        low_C = np.min([low for low, _ in ends], axis=0)
        span_C = np.max([high for _, high in ends], axis=0) - low_C
        return _Range(low_C[:, None, None], np.where(span_C > 0, span_C, 1).astype(np.float32)[:, None, None])
