"""A picture of predictions: images with their class, what was said, and the order they were read in.

B images, C channels, H W pixels, K classes, N patches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from reorder_core import Layout

_MOST = 32
_COLUMNS = 8


def draw_predictions(
    images_BCHW: Tensor, target_B: Tensor, logits_BK: Tensor, layout: Layout | None, path: Path
) -> None:
    """Write a PNG of up to 32 images: class and prediction with its probability, green where right, red where not.

    With a layout, the order is a thin line through the patches' centres, dark at its beginning.
    """
    count = min(_MOST, images_BCHW.shape[0])
    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.75 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    probability_BK = logits_BK[:count].detach().float().softmax(dim=1).cpu()
    for number, panel in enumerate(panels):
        panel.set_axis_off()
        if number >= count:
            continue
        height, width = images_BCHW.shape[-2:]
        grey = {"cmap": "gray"} if images_BCHW.shape[1] == 1 else {}
        panel.imshow(_shown(images_BCHW[number]), extent=(0, width, height, 0), interpolation="nearest", **grey)
        true, said = int(target_B[number]), int(probability_BK[number].argmax())
        title = f"{true} → {said} ({float(probability_BK[number, said]):.0%})"
        panel.set_title(title, fontsize=8, color="tab:green" if said == true else "tab:red")
        if layout is not None:
            _draw_order(panel, layout, number, height, width)
    figure.savefig(path, dpi=100, format="png")


def _shown(image_CHW: Tensor) -> np.ndarray:
    """Channels last, stretched to 0 … 1; one channel becomes a plain picture."""
    pixels_HWC = image_CHW.detach().float().cpu().permute(1, 2, 0).numpy()
    low, high = float(pixels_HWC.min()), float(pixels_HWC.max())
    stretched = (pixels_HWC - low) / max(high - low, 1e-6)
    return stretched[..., 0] if stretched.shape[-1] == 1 else stretched


def _draw_order(panel: Axes, layout: Layout, image: int, height: int, width: int) -> None:
    """The order of one image as a line of short pieces whose colour follows the slot."""
    from matplotlib.collections import LineCollection

    group = 0 if layout.group_B is None else int(layout.group_B[image])
    places_N3 = layout.grid.places()[layout.perm_GN[group].cpu().numpy()]
    across_N = (places_N3[:, 1] + 0.5) * width / layout.grid.columns
    down_N = (places_N3[:, 0] + 0.5) * height / layout.grid.rows
    points_N2 = np.stack([across_N, down_N], axis=1)
    pieces = np.stack([points_N2[:-1], points_N2[1:]], axis=1)
    line = LineCollection(list(pieces), cmap="viridis", linewidths=0.8, alpha=0.8)
    line.set_array(np.arange(len(pieces)))
    panel.add_collection(line)
