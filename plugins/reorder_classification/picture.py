"""A picture of predictions: images with their class, what was said, and the order they were read in.

B images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from reorder_core import Layout
from reorder_core.drawing.predictions import draw_image, draw_order, panels, save_figure

_MOST = 32


def draw_predictions(
    images_BCHW: Tensor, target_B: Tensor, logits_BK: Tensor, layout: Layout | None, path: Path
) -> None:
    """Write a PNG of up to 32 images: class and prediction with its probability, green where right, red where not.

    With a layout, the order is a thin line through the patches' centres, dark at its beginning.
    """
    count = min(_MOST, images_BCHW.shape[0])
    figure, every = panels(count)
    probability_BK = logits_BK[:count].detach().float().softmax(dim=1).cpu()
    for number, panel in enumerate(every):
        draw_image(panel, images_BCHW[number])
        true, said = int(target_B[number]), int(probability_BK[number].argmax())
        title = f"{true} → {said} ({float(probability_BK[number, said]):.0%})"
        panel.set_title(title, fontsize=8, color="tab:green" if said == true else "tab:red")
        if layout is not None:
            draw_order(panel, layout, number, *images_BCHW.shape[-2:])
    save_figure(figure, path)
