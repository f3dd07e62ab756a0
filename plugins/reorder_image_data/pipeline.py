"""Pictures to normalised images: timm's transforms.

C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL.Image import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import Compose, RandomHorizontalFlip, RandomVerticalFlip

from reorder_image_data.settings import PipelineSettings

Transform = Callable[[Image], Tensor]


def validation_transform(settings: PipelineSettings) -> Compose:
    """Resize, centre crop, normalise: float32 [C, H, W]."""
    mean, std = settings.normalisation
    size = settings.height_width
    # timm resizes to floor(size / crop_pct): half a pixel more keeps the floor at `resize` whatever the rounding.
    crop_pct = 1.0 if settings.resize is None else min(size) / (settings.resize + 0.5)
    return create_transform(
        (settings.channels, *size),
        crop_pct=crop_pct,
        crop_mode="squash" if settings.resize is None else "center",
        interpolation=settings.interpolation,
        mean=mean,
        std=std,
    )


def training_transform(settings: PipelineSettings) -> Compose:
    """Crop, flips, rand-augment or colour jitter, normalise, erase: float32 [C, H, W]; what is off is left out."""
    mean, std = settings.normalisation
    primary, secondary, final = create_transform(
        (settings.channels, *settings.height_width),
        is_training=True,
        separate=True,
        scale=settings.scale,
        hflip=settings.flip,
        vflip=settings.vertical_flip,
        color_jitter=settings.color_jitter or None,  # type: ignore[arg-type]
        auto_augment=settings.rand_augment,
        interpolation=settings.interpolation,
        mean=mean,
        std=std,
        re_prob=settings.random_erasing,
        re_mode="pixel",
    )
    if settings.crop == "centre":
        # timm's validation pipeline up to the crop, which ends in to-tensor and normalise.
        flips = [RandomHorizontalFlip(settings.flip), RandomVerticalFlip(settings.vertical_flip)]
        primary = Compose([*validation_transform(settings).transforms[:-2], *(flip for flip in flips if flip.p > 0)])
    return Compose([*primary.transforms, *secondary.transforms, *final.transforms])
