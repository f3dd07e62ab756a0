"""Pictures of predictions: panels of images, and the order they were read in as a line; what tasks draw with.

C channels, H W pixels, N patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reorder_core.saved import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from torch import Tensor

    from reorder_core.layout import Layout


def panels(images: int, columns: int = 8, side: float = 1.5, below: float = 0.25) -> tuple[Figure, list[Axes]]:
    """A figure with a panel an image, frames and ticks away, and its panels; the room left over stays empty.

    side: of a panel, below: the room for its title, in inches.
    """
    columns = max(1, min(columns, images))
    rows = max(1, -(-images // columns))
    figure = Figure(figsize=(side * columns, (side + below) * rows), layout="constrained")
    FigureCanvasAgg(figure)
    every: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in every:
        panel.set_axis_off()
    return figure, every[:images]


def shown(image_CHW: Tensor) -> NDArray[Any]:
    """A normalised image as a picture: channels last, stretched to 0 … 1; one channel becomes [H, W]."""
    pixels_HWC = image_CHW.detach().float().cpu().permute(1, 2, 0).numpy()
    low, high = float(pixels_HWC.min()), float(pixels_HWC.max())
    stretched = (pixels_HWC - low) / max(high - low, 1e-6)
    picture: NDArray[Any] = stretched[..., 0] if stretched.shape[-1] == 1 else stretched
    return picture


def draw_image(panel: Axes, image_CHW: Tensor) -> None:
    """The image in its own pixels as coordinates: (0, 0) is the upper left corner of the first pixel."""
    height, width = image_CHW.shape[-2:]
    grey: dict[str, Any] = {"cmap": "gray"} if image_CHW.shape[0] == 1 else {}
    panel.imshow(shown(image_CHW), extent=(0, width, height, 0), interpolation="nearest", **grey)


def draw_order(panel: Axes, layout: Layout, image: int, height: int, width: int) -> None:
    """The order of one image of a batch as a line through its patches' centres, whose colour follows the slot."""
    group = 0 if layout.group_B is None else int(layout.group_B[image])
    places_N3 = layout.grid.places()[layout.perm_GN[group].cpu().numpy()]
    across_N = (places_N3[:, 1] + 0.5) * width / layout.grid.columns
    down_N = (places_N3[:, 0] + 0.5) * height / layout.grid.rows
    points_N2 = np.stack([across_N, down_N], axis=1)
    pieces = np.stack([points_N2[:-1], points_N2[1:]], axis=1)
    line = LineCollection(list(pieces), cmap="viridis", linewidths=0.8, alpha=0.8)
    line.set_array(np.arange(len(pieces)))
    panel.add_collection(line)


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Write a PNG, whole or not at all."""
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=dpi, format="png", facecolor="white")
