"""The tokenizer `kmeans`: the nearest of K typical patches (Sculley 2010, Web-Scale K-Means Clustering).

B images, C channels, H W pixels, N patches, P values of a patch, M patches of a step, K codes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core import Context, RunError
from reorder_core.patches import cut, pasted
from reorder_core.pixels import Pixels
from reorder_tokenizers.interface import Progress
from reorder_tokenizers.learned import Learned
from reorder_tokenizers.nearest import nearest
from reorder_tokenizers.settings import KMeansSettings
from reorder_tokenizers.source import batches

_LEAST_PATCHES = 4096  # of a step
_PATCHES_A_CODE = 4


class KMeans(Learned):
    """scikit-learn's MiniBatchKMeans on the pixels of patches, fed a few images at a time."""

    kind: ClassVar[str] = "kmeans"
    settings: KMeansSettings

    def __init__(self, settings: KMeansSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.centre_KP = torch.zeros(self.codes, context.channels * context.patch**2)
        if settings.path is not None:
            self._load(settings.path)

    def _learn(self, pixels: Pixels, progress: Progress) -> None:
        from sklearn.cluster import MiniBatchKMeans

        seed = int(torch.randint(2**31, (1,), generator=self.generator))
        enough = max(_LEAST_PATCHES, _PATCHES_A_CODE * self.codes)
        model = MiniBatchKMeans(self.codes, batch_size=enough, random_state=seed, compute_labels=False)
        waiting: list[NDArray[np.float32]] = []
        done, total, images = 0, self.settings.epochs * len(pixels), 0
        for epoch in range(self.settings.epochs):
            self.status = f"epoch {epoch + 1}"
            for images_BCHW in batches(pixels, self.settings.batch_size, self.generator):
                waiting.append(
                    cut(images_BCHW, self.context.grid, self.context.patch).reshape(-1, self.centre_KP.shape[1])
                )
                if sum(map(len, waiting)) >= enough:
                    model.partial_fit(np.concatenate(waiting))
                    waiting.clear()
                images += len(images_BCHW)
                done = min(done + self.settings.batch_size, (epoch + 1) * len(pixels))
                progress(done, total)
        if waiting and (hasattr(model, "cluster_centers_") or sum(map(len, waiting)) >= self.codes):
            model.partial_fit(np.concatenate(waiting))
        if not hasattr(model, "cluster_centers_"):
            raise RunError(f"only {images // self.settings.epochs} images can be read, too few for {self.codes} codes")
        progress(total, total)
        self.centre_KP = torch.from_numpy(model.cluster_centers_.astype(np.float32))

    def _codes_of(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.int64]:
        patches_BNP = torch.from_numpy(cut(images_BCHW, self.context.grid, self.context.patch))
        code_M = nearest(patches_BNP.flatten(0, 1), self.centre_KP)
        codes_BN: NDArray[np.int64] = code_M.view(patches_BNP.shape[:2]).numpy()
        return codes_BN

    def _drawn(self, codes_BN: NDArray[np.int64]) -> NDArray[np.float32]:
        return pasted(self.centre_KP.numpy()[codes_BN], self.context.grid, self.context.patch)

    def code_patches(self) -> NDArray[np.float32]:
        patch = self.context.patch
        unit_KP: NDArray[np.float32] = np.clip(self.centre_KP.numpy(), 0, 1)
        return unit_KP.reshape(self.codes, self.context.channels, patch, patch)

    def _state(self) -> dict[str, Tensor]:
        return {"centre": self.centre_KP}

    def _take(self, tensors: dict[str, Tensor]) -> None:
        centre_KP = tensors["centre"]
        if centre_KP.shape != self.centre_KP.shape:
            raise ValueError(f"the centres are {list(centre_KP.shape)} and should be {list(self.centre_KP.shape)}")
        self.centre_KP = centre_KP
