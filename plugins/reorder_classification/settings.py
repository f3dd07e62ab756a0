"""Settings of the task `classification`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from reorder_core import Problem, RunFacts, Settings


class ClassificationSettings(Settings):
    """A linear head on the backbone's summary, and how it is trained."""

    norm: bool = False
    """a LayerNorm before the linear head (the built-in backbones end in a norm of their own)"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of the summary's numbers that are dropped before the head in training"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of the target spread evenly over all classes in training (Szegedy et al. 2016)"""
    auxiliary: float = Field(default=0.3, ge=0)
    """weight, in training, of the loss of the same head on each summary that a backbone reads early (its exits)"""
    mixup: float = Field(default=0.0, ge=0)
    """alpha of mixup (Zhang et al. 2018); 0 is off"""
    cutmix: float = Field(default=0.0, ge=0)
    """alpha of cutmix (Yun et al. 2019); 0 is off"""
    mix_probability: float = Field(default=1.0, gt=0, le=1)
    """how often a batch is mixed at all, where mixup or cutmix is on"""
    cutmix_share: float = Field(default=0.5, ge=0, le=1)
    """how often cutmix is taken where both are on"""
    mix_mode: Literal["batch", "pair", "elem"] = "batch"
    """one mixing weight for a batch, for each pair of images, or for each image"""

    @property
    def mixes(self) -> bool:
        """Whether training batches are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.data.target != "class":
            yield Problem("name", f"classification needs one class an image, and this data has '{facts.data.target}'")
        elif facts.data.classes is None:
            yield Problem("name", "the data does not say how many classes it has: give its setting `classes`")
        elif facts.data.classes < 2:
            yield Problem("name", f"classification needs at least 2 classes, and this data has {facts.data.classes}")
        if self.mixes and facts.batch_size % 2:
            key = "mixup" if self.mixup > 0 else "cutmix"
            yield Problem(key, f"mixing needs an even batch size, not {facts.batch_size}")
