"""Mixup (Zhang et al. 2018, eq. 1) and cutmix (Yun et al. 2019, eq. 1-2), as timm has them.

B images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from timm.data.mixup import Mixup

from reorder_classification.settings import ClassificationSettings
from reorder_core import Batch, UsageError


class Mixer:
    """Mixes each image with the one at the mirrored place of its batch; targets become probabilities, [B, K]."""

    def __init__(self, settings: ClassificationSettings, classes: int) -> None:
        self._mixup = Mixup(  # type: ignore[no-untyped-call]
            mixup_alpha=settings.mixup,
            cutmix_alpha=settings.cutmix,
            prob=settings.mix_probability,
            switch_prob=settings.cutmix_share,
            mode=settings.mix_mode,
            label_smoothing=0.0,
            num_classes=classes,
        )

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """A new batch; the given one is left as it was. Raises `UsageError` for an odd number of images."""
        if len(batch) % 2:
            raise UsageError(f"mixup and cutmix need an even batch, not one of {len(batch)} images")
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        with _numpy_seeded(seed):
            images_BCHW, target_BK = self._mixup(batch.images_BCHW.clone(), batch.target)
        return replace(batch, images_BCHW=images_BCHW, target=target_BK)


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """timm draws from NumPy's global state: seed it here, and put it back as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
