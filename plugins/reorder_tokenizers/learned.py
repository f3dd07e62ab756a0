"""What `kmeans` and `vqvae` share: they learn from a stream of images, and are kept in a file.

B images, C channels, H W pixels, N patches, K codes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reorder_core import Context, UsageError, written_aside
from reorder_core.errors import one_line
from reorder_core.interfaces.dataset import evenly
from reorder_core.pixels import MemoryImages, Pixels
from reorder_tokenizers.checked import checked
from reorder_tokenizers.header import Header, read_header
from reorder_tokenizers.interface import Progress
from reorder_tokenizers.settings import LearnedSettings
from reorder_tokenizers.source import Part, batches
from reorder_tokenizers.usage import Usage

_IMAGES_AT_ONCE = 256
_LOOKS_A_CODE = 32  # patches that are looked at for each code, to see which are used


class Learned(ABC):
    """A codebook that `learn` makes, or that a file holds.

    fitted: whether there is one. usage: of the training images, once it was learned here. status: how the training
    goes, in a few words, for a display.
    """

    kind: ClassVar[str]
    settings: LearnedSettings

    def __init__(self, settings: LearnedSettings, context: Context) -> None:
        self.context = context
        self.fitted = False
        self.usage: Usage | None = None
        self.status = ""
        self.settings = settings if settings.path is None else self._settings_of(settings.path, settings)
        self.codes = self.settings.codes
        self.generator = context.generator or torch.Generator().manual_seed(0)

    def _settings_of(self, path: Path, settings: LearnedSettings) -> LearnedSettings:
        """Those the file was made with. Raises `UsageError` where it does not fit the context."""
        header = read_header(path)
        misfit = header.misfit(path, self.kind, self.context.patch, self.context.channels)
        if misfit is not None:
            raise UsageError(misfit)
        of_use = {name: getattr(settings, name) for name in settings.OF_USE & settings.model_fields_set - {"path"}}
        return type(settings)(**{**header.settings, **of_use})

    def fit(self, images_BCHW: NDArray[np.float32], progress: Progress | None = None) -> None:
        """Learn from images [B, C, H, W] that lie in memory: see `learn`."""
        self.learn(MemoryImages(checked(images_BCHW, self.context)), progress)

    def learn(self, pixels: Pixels, progress: Progress | None = None) -> None:
        """Learn from images that are read again in every epoch; memory does not grow with them.

        Raises `UsageError` for fewer patches than codes, and `RunError` where the codebook collapsed or a loss is not
        finite. progress: told the images read, of all epochs.
        """
        patches = len(pixels) * self.context.grid.size
        if patches < self.codes:
            raise UsageError(
                f"{len(pixels)} images have {patches} patches, fewer than {self.codes} codes: give more images or "
                f"lower 'codes'"
            )
        self.fitted = False
        self._learn(pixels, progress or (lambda done, total: None))
        wanted = max(1024, math.ceil(_LOOKS_A_CODE * self.codes / self.context.grid.size))
        self.usage = self.usage_on(Part(pixels, evenly(len(pixels), wanted)))
        self.usage.judge(self.settings.least_used)
        self.fitted = True

    def usage_on(self, pixels: Pixels) -> Usage:
        """How often each code is chosen over all of these images."""
        count_K = np.zeros(self.codes, np.int64)
        for images_BCHW in batches(pixels, _IMAGES_AT_ONCE):
            count_K += np.bincount(self._codes_of(images_BCHW).ravel(), minlength=self.codes)
        return Usage(count_K)

    def tokens(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.int64]:
        """The code of each patch, int64 [B, N]."""
        self._require_fitted()
        images_BCHW = checked(images_BCHW, self.context)
        parts = [images_BCHW[start : start + _IMAGES_AT_ONCE] for start in range(0, len(images_BCHW), _IMAGES_AT_ONCE)]
        codes = [self._codes_of(part) for part in parts]
        return np.concatenate(codes) if codes else np.zeros((0, self.context.grid.size), np.int64)

    def reconstruct(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The images as their codes alone draw them, float32 [B, C, H, W] in [0, 1]."""
        return np.clip(self._drawn(self.tokens(images_BCHW)), 0, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """What was learned, by name: enough for another one with the same settings and context to give these codes."""
        self._require_fitted()
        return {name: value.detach().cpu().contiguous() for name, value in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take what another one learned. Raises `RuntimeError`, `KeyError` or `ValueError` where it does not fit."""
        self._take(dict(state))
        self.fitted = True

    def save(self, path: Path, figures: dict[str, Any]) -> None:
        """Write a safetensors file, whole or not at all: the weights, what they fit, settings, figures of a report."""
        tensors = self.state_dict()
        settings = self.settings.model_dump(mode="json", exclude=set(self.settings.OF_USE))
        header = Header(self.kind, self.context.patch, self.context.channels, self.codes, settings, figures)
        with written_aside(path) as aside:
            aside.touch()  # an OSError that says why, where safetensors would raise one of its own
            save_file(tensors, aside, header.as_metadata())

    def _load(self, path: Path) -> None:
        """Take the weights of the file."""
        try:
            self.load_state_dict(load_file(path.expanduser()))
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            reason = one_line(error, 200)
            raise UsageError(f"the weights in {path} are damaged ({reason}): train the tokenizer again") from error

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise UsageError(
                f"the tokenizer '{self.kind}' has no codes yet: fit it to images, or give the path of a trained one"
            )

    @abstractmethod
    def code_patches(self) -> NDArray[np.float32]:
        """What each code looks like, float32 [K, C, patch, patch] in [0, 1]."""

    @abstractmethod
    def _learn(self, pixels: Pixels, progress: Progress) -> None: ...

    @abstractmethod
    def _codes_of(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.int64]: ...

    @abstractmethod
    def _drawn(self, codes_BN: NDArray[np.int64]) -> NDArray[np.float32]: ...

    @abstractmethod
    def _state(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _take(self, tensors: dict[str, Tensor]) -> None: ...
