"""The tokenizer `uniform`: how bright a patch is, in equal steps. Nothing is learned.

B images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context
from reorder_core.patches import cut, pasted
from reorder_tokenizers.checked import checked
from reorder_tokenizers.interface import Progress
from reorder_tokenizers.settings import UniformSettings


class Uniform:
    """Code k of K: the mean over a patch's pixels and channels lies in [k/K, (k+1)/K); full white is the last code."""

    fitted = True

    def __init__(self, settings: UniformSettings, context: Context) -> None:
        self.codes = settings.levels
        self.context = context

    def fit(self, images_BCHW: NDArray[np.float32], progress: Progress | None = None) -> None:
        """Does nothing."""

    def tokens(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.int64]:
        patches_BNP = cut(checked(images_BCHW, self.context), self.context.grid, self.context.patch)
        mean_BN = patches_BNP.mean(axis=2, dtype=np.float64)
        level_BN: NDArray[np.int64] = np.floor(mean_BN * self.codes).astype(np.int64)
        return np.minimum(level_BN, self.codes - 1)

    def reconstruct(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each patch in the middle of its step, grey, [B, C, H, W]."""
        middle_BN = ((self.tokens(images_BCHW) + 0.5) / self.codes).astype(np.float32)
        values = self.context.channels * self.context.patch**2
        return pasted(np.repeat(middle_BN[:, :, None], values, axis=2), self.context.grid, self.context.patch)
