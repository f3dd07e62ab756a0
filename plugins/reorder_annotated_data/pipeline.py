"""Pictures to normalised images, and their boxes and masks with them, by torchvision's transforms v2.

C channels, H W pixels, O objects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from reorder_annotated_data.geometry import geometry
from reorder_annotated_data.pipeline_settings import PipelineSettings
from reorder_core.interfaces.targets import Objects


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A decoded picture and its target to an image of one size and the target that fits it.

    min_area: square pixels below which a box is left out; None: only boxes of no area are (validation).
    """

    transform: v2.Compose
    mean: list[float]
    std: list[float]
    min_area: float | None

    @classmethod
    def of(cls, settings: PipelineSettings, training: bool) -> Pipeline:
        """That of the training images, or that of the validation images, which has nothing random."""
        steps = geometry(settings, training)
        if training and settings.color_jitter > 0:
            steps.append(v2.ColorJitter(*(settings.color_jitter,) * 3))
        mean, std = settings.normalisation
        return cls(v2.Compose(steps), mean, std, getattr(settings, "min_area", None) if training else None)

    def __call__(self, picture: Image, target: Any) -> tuple[Tensor, Any]:
        """float32 [C, H, W], and the target: objects and masks [H, W] moved with the pixels, all else as it is."""
        sample: dict[str, Any] = {"image": tv_tensors.Image(functional.pil_to_tensor(picture))}
        if isinstance(target, Objects):
            canvas = (picture.height, picture.width)
            sample["boxes"] = tv_tensors.BoundingBoxes(target.boxes_O4, format="XYXY", canvas_size=canvas)
            if target.masks_OHW is not None:
                sample["masks"] = tv_tensors.Mask(target.masks_OHW.to(torch.uint8))
        elif _is_mask(target):
            sample["masks"] = tv_tensors.Mask(target.to(torch.uint8))
        moved = self.transform(sample)
        image_CHW = functional.normalize(
            functional.to_dtype(moved["image"].as_subclass(Tensor), torch.float32, True), self.mean, self.std
        )
        if isinstance(target, Objects):
            return image_CHW, self._objects(target, moved, image_CHW.shape[-2:])
        if _is_mask(target):
            return image_CHW, moved["masks"].as_subclass(Tensor).long()
        return image_CHW, target

    def _objects(self, before: Objects, moved: dict[str, Any], height_width: tuple[int, ...]) -> Objects:
        """The objects that are still seen, their boxes cut at the edges."""
        boxes_O4 = moved["boxes"].as_subclass(Tensor).clone()
        # The part that is seen decides the area; what falls outside is not only moved but lost.
        boxes_O4[:, 0::2] = boxes_O4[:, 0::2].clamp(0, height_width[1])
        boxes_O4[:, 1::2] = boxes_O4[:, 1::2].clamp(0, height_width[0])
        side_O2 = boxes_O4[:, 2:] - boxes_O4[:, :2]
        box_area_O = side_O2.prod(1)
        kept_O = (side_O2 > 0).all(1)
        if self.min_area is not None:
            kept_O &= box_area_O >= self.min_area
        masks_OHW, area_O = None, before.area_O
        if "masks" in moved:
            masks_OHW = moved["masks"].as_subclass(Tensor).bool()
            if self.min_area is not None:
                kept_O &= masks_OHW.flatten(1).any(1)
        if area_O is not None:
            was_O = (before.boxes_O4[:, 2:] - before.boxes_O4[:, :2]).prod(1)
            area_O = (area_O * box_area_O / was_O)[kept_O]
        return replace(
            before,
            boxes_O4=boxes_O4[kept_O],
            label_O=before.label_O[kept_O],
            masks_OHW=None if masks_OHW is None else masks_OHW[kept_O],
            crowd_O=None if before.crowd_O is None else before.crowd_O[kept_O],
            area_O=area_O,
        )


def _is_mask(target: Any) -> bool:
    return isinstance(target, Tensor) and target.ndim == 2
