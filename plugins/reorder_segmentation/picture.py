"""A picture of masks: each image with the order it was read in, its true mask, and what was said.

B images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Patch
from torch import Tensor

from reorder_core import Layout
from reorder_core.drawing.predictions import draw_image, draw_order, panels, save_figure
from reorder_core.interfaces.targets import IGNORED

_MOST, _IN_LEGEND = 16, 24
_UNKNOWN = (1.0, 1.0, 1.0)


def draw_masks(
    images_BCHW: Tensor,
    mask_BHW: Tensor,
    predicted_BHW: Tensor,
    names: Sequence[str],
    layout: Layout | None,
    path: Path,
) -> None:
    """Write a PNG of up to 16 images, three panels each: the image, the true mask, the predicted one.

    With a layout, the order is a line over the image. Unknown pixels are white, and are left out of the prediction too.
    The legend names the classes that are seen, the 24 largest of them.
    """
    count = min(_MOST, images_BCHW.shape[0])
    true_BHW = mask_BHW[:count].cpu().numpy()
    said_BHW = np.where(true_BHW == IGNORED, IGNORED, predicted_BHW[:count].cpu().numpy())
    colour_K3 = colours(len(names))
    figure, every = panels(3 * count, columns=12)
    for number in range(count):
        image, *masks = every[3 * number : 3 * number + 3]
        draw_image(image, images_BCHW[number])
        if layout is not None:
            draw_order(image, layout, number, *images_BCHW.shape[-2:])
        for panel, title, mask_HW in zip(masks, ("true", "said"), (true_BHW[number], said_BHW[number]), strict=True):
            panel.imshow(colour_K3[mask_HW], interpolation="nearest")
            panel.set_title(title, fontsize=8)
    areas_K = np.bincount(np.concatenate([true_BHW.ravel(), said_BHW.ravel()]), minlength=IGNORED + 1)[: len(names)]
    largest = [int(k) for k in np.argsort(-areas_K, kind="stable")[:_IN_LEGEND] if areas_K[k]]
    handles = [Patch(facecolor=colour_K3[k], edgecolor="grey", label=names[k]) for k in sorted(largest)]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(12, len(handles)), fontsize=8)
    save_figure(figure, path)


def colours(classes: int) -> np.ndarray:
    """A colour a class, float [256, 3]: a dark one first, twenty that differ well, and then shades of a wheel."""
    table = np.full((IGNORED + 1, 3), _UNKNOWN)
    table[0] = (0.15, 0.15, 0.15)
    well, wheel = colormaps["tab20"].colors, colormaps["hsv"]  # type: ignore[attr-defined]
    for number in range(1, classes):
        table[number] = well[number - 1] if number <= 20 else wheel((number * 0.618034) % 1.0)[:3]
    return table
