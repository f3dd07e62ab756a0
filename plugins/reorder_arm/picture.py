"""A picture of what was predicted: images, and below each its predicted clusters in their places.

B images, C channels, H W pixels, N patches or slots, K patches of a cluster, M = N - K, P pixels of a patch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from reorder_core.patch_pixels import unpatchify

if TYPE_CHECKING:
    from reorder_arm.task import Prediction

_MOST = 16
_COLUMNS = 8


def in_place(pixels_BNP: Tensor, prediction: Prediction, cluster: int, patch: int) -> Tensor:
    """Images [B, C, H, W] of the first cluster as it is and of all others as they were predicted.

    pixels_BNP: the true ones in patch order. A prediction has no mean and no contrast: both are the true patch's.
    """
    layout = prediction.layout
    true_BNP = layout.order(pixels_BNP)
    after_BMP = true_BNP[:, cluster:]
    spread_BM1 = after_BMP.std(dim=-1, keepdim=True)
    said_BMP = prediction.pixels_BMP.detach() * spread_BM1 + after_BMP.mean(dim=-1, keepdim=True)
    placed_BNP = layout.restore(torch.cat([true_BNP[:, :cluster], said_BMP], dim=1))
    return unpatchify(placed_BNP, layout.grid, patch)


def draw_predictions(
    images_BCHW: Tensor, pixels_BNP: Tensor, prediction: Prediction, cluster: int, patch: int, path: Path
) -> None:
    """Write a PNG of up to 16 images, each above what was predicted of it."""
    said_BCHW = in_place(pixels_BNP, prediction, cluster, patch)
    count = min(_MOST, len(images_BCHW))
    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(1.5 * _COLUMNS, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 * rows, _COLUMNS, squeeze=False)
    for panel in panels.ravel():
        panel.set_axis_off()
    for number in range(count):
        row, column = divmod(number, _COLUMNS)
        low, high = float(images_BCHW[number].min()), float(images_BCHW[number].max())
        for below, image_CHW in enumerate((images_BCHW[number], said_BCHW[number])):
            shown_HWC = ((image_CHW.float().cpu() - low) / max(high - low, 1e-6)).clamp(0, 1).permute(1, 2, 0)
            shown = shown_HWC[..., 0] if shown_HWC.shape[-1] == 1 else shown_HWC
            grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if shown.ndim == 2 else {}
            panels[2 * row + below, column].imshow(shown.numpy(), interpolation="nearest", **grey)
    figure.savefig(path, dpi=100, format="png")
