"""How pictures come to their size, and boxes and masks with them: torchvision's transforms v2, and three of our own.

torchvision's own scale jitter rounds the sides of narrow pictures to 0 pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from reorder_annotated_data.pipeline_settings import PipelineSettings
from reorder_core.interfaces.targets import IGNORED


class Letterbox(v2.Transform):  # type: ignore[misc]
    """As large as fits into (height, width) in its proportions, in the middle; the rest is filled."""

    def __init__(self, height_width: tuple[int, int], fill: dict[Any, Any]) -> None:
        super().__init__()
        self.height_width = height_width
        self.fill = fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size to resize to, and the padding (left, top, right, bottom)."""
        height, width = v2.query_size(flat_inputs)
        share = min(self.height_width[0] / height, self.height_width[1] / width)
        size = [
            min(whole, max(1, round(side * share)))
            for side, whole in zip((height, width), self.height_width, strict=True)
        ]
        above, before = ((whole - side) // 2 for side, whole in zip(size, self.height_width, strict=True))
        after, below = self.height_width[1] - size[1] - before, self.height_width[0] - size[0] - above
        return {"size": size, "padding": [before, above, after, below]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes, then pads."""
        return functional.pad(
            functional.resize(inpt, params["size"]), params["padding"], fill=self.fill.get(type(inpt), 0)
        )


class _InProportion(v2.Transform):  # type: ignore[misc]
    """Resizes to params["size"]."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes."""
        return functional.resize(inpt, params["size"])

    @staticmethod
    def _times(share: float, height: int, width: int) -> dict[str, Any]:
        return {"size": [max(1, round(height * share)), max(1, round(width * share))]}


class ShorterSide(_InProportion):
    """Resizes in proportion: the shorter side to `side`, or as small as covers (height, width) where it is None.

    Never smaller than (height, width), whatever the proportions.
    """

    def __init__(self, height_width: tuple[int, int], side: int | None) -> None:
        super().__init__()
        self.height_width = height_width
        self.side = side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size to resize to."""
        height, width = v2.query_size(flat_inputs)
        share = max(self.height_width[0] / height, self.height_width[1] / width)
        if self.side is not None:
            share = max(share, self.side / min(height, width))
        return self._times(share, height, width)


class ScaleJitter(_InProportion):
    """As large as fits into (height, width) in its proportions, times a random factor (Ghiasi et al. 2021).

    scales: the factor, from – to, evenly distributed.
    """

    def __init__(self, height_width: tuple[int, int], scales: tuple[float, float]) -> None:
        super().__init__()
        self.height_width = height_width
        self.scales = scales

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size to resize to."""
        height, width = v2.query_size(flat_inputs)
        factor = self.scales[0] + (self.scales[1] - self.scales[0]) * float(torch.rand(()))
        share = factor * min(self.height_width[0] / height, self.height_width[1] / width)
        return self._times(share, height, width)


def geometry(settings: PipelineSettings, training: bool) -> list[v2.Transform]:
    """What brings pictures to their size, and mirrors: the part that boxes and masks follow."""
    size = list(settings.height_width)
    # Filled with the mean, which normalisation turns into 0; of such pixels no mask knows the class.
    fill = {
        tv_tensors.Image: [round(255 * each) for each in settings.normalisation[0]],
        tv_tensors.Mask: IGNORED if settings.target_type == "mask" else 0,
        "others": 0,
    }
    if training and settings.crop == "random_resized":
        steps: list[v2.Transform] = [v2.RandomResizedCrop(size, scale=settings.scales)]
    elif training and settings.crop == "scale_jitter":
        jitter = ScaleJitter(settings.height_width, settings.scales)
        steps = [jitter, v2.RandomCrop(size, pad_if_needed=True, fill=fill)]
    elif settings.fit == "stretch":
        steps = [v2.Resize(size)]
    elif settings.fit == "letterbox":
        steps = [Letterbox(settings.height_width, fill)]
    else:
        steps = [ShorterSide(settings.height_width, settings.resize), v2.CenterCrop(size)]
    if training and settings.flip_rate > 0:
        steps.append(v2.RandomHorizontalFlip(settings.flip_rate))
    return steps
