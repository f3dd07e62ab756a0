"""Pixels brought to [0, 1], where tokenizers want them.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class UnitRange:
    """The lowest and highest value of each channel, float32 [C], that become 0 and 1.

    A recipe's images are normalised, channel by channel, and how is the data set's own affair; where every channel of
    the images looked at holds both black and full ink, this is that normalisation undone.
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
