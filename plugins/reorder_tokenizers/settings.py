"""Settings of the tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from reorder_core import Problem, RunFacts, Settings, UsageError


class UniformSettings(Settings):
    """Mean intensity in equal steps."""

    levels: int = Field(default=64, ge=1, le=65536)
    """how many steps there are from black to white"""


class LearnedSettings(Settings):
    """A codebook that is learned from images, or read from a file."""

    KIND: ClassVar[str]
    OF_USE: ClassVar[frozenset[str]] = frozenset({"path", "device"})

    path: Path | None = None
    """a file of `reorder tokenizer train`, from the working directory; left out: learned from the images at hand"""
    codes: int = Field(default=512, ge=2, le=65536)
    """how many codes the codebook has"""
    batch_size: int = Field(default=64, ge=1)
    """images a step"""
    least_used: float = Field(default=0.05, ge=0, le=1)
    """the share of the codes that the training images must use; a codebook that uses fewer has collapsed: an error"""

    @model_validator(mode="after")
    def _of_file(self) -> Self:
        # a nested setting arrives with every default filled in, so that only other values are a contradiction
        fields = type(self).model_fields
        given = sorted(key for key in fields if key not in self.OF_USE and getattr(self, key) != fields[key].default)
        if self.path is not None and given:
            raise ValueError(f"{', '.join(given)}: the file of `path` has its own; leave out one or the other")
        return self

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """A file that is not there, or was made for other patches, is found before anything starts."""
        if self.path is not None:
            from reorder_tokenizers.header import read_header

            try:
                misfit = read_header(self.path).misfit(self.path, self.KIND, facts.patch, facts.data.channels)
            except UsageError as error:
                misfit = str(error)
            if misfit is not None:
                yield Problem("path", misfit)


class KMeansSettings(LearnedSettings):
    """Mini-batch k-means on the pixels of patches, as scikit-learn has it."""

    KIND: ClassVar[str] = "kmeans"

    epochs: int = Field(default=5, ge=1)
    """how often every image is read"""


class VqvaeSettings(LearnedSettings):
    """A convolutional VQ-VAE with one code a patch."""

    KIND: ClassVar[str] = "vqvae"

    epochs: int = Field(default=20, ge=1)
    """how often every image is read"""
    batch_size: int = Field(default=16, ge=1)
    """images a step; many small steps serve better than few large ones"""
    width: int = Field(default=64, ge=1)
    """channels of the convolutions"""
    depth: int = Field(default=2, ge=0)
    """residual blocks of the encoder, and of the decoder; with 0 a code depends on little more than its own patch"""
    code_width: int = Field(default=16, ge=1)
    """D, the length of a code's vector"""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Adam's; it falls to 0 along a cosine"""
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    """the share of the steps, at the start, in which latents pass without the codebook"""
    decay: float = Field(default=0.97, ge=0, lt=1)
    """of the codebook's moving averages, a step"""
    commitment: float = Field(default=0.25, ge=0)
    """weight of the loss that keeps the encoder near the codes it chose; the paper's beta"""
    revive_below: float = Field(default=0.1, ge=0, lt=1)
    """a code that is chosen less often than this share of the mean is dead, and placed anew; 0: never"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where the network runs; auto: on CUDA where there is some, else on the CPU"""


class CodesSettings(Settings):
    """Codes that were made before, by whatever tokenizer."""

    path: Path
    """an .npy or .npz file with one array of whole numbers, [images, patches] or [images, rows, columns]; the images in
    the order of their split, or of the sorted paths of their folder"""
    array: str | None = None
    """which array of an .npz file; may be left out where it holds one"""
    codes: int | None = Field(default=None, ge=1, le=65536)
    """how many codes there are; left out: one more than the highest in the file"""
