"""A picture of labels: each image with the order it was read in, the classes it shows, and those that were said.

B images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from torch import Tensor

from reorder_core import Layout
from reorder_core.drawing.predictions import draw_image, draw_order, panels, save_figure

_MOST, _LETTERS = 32, 34


def draw_labels(
    images_BCHW: Tensor,
    target_BK: Tensor,
    logits_BK: Tensor,
    names: Sequence[str],
    layout: Layout | None,
    path: Path,
) -> None:
    """Write a PNG of up to 32 images: the classes they show, and those said with a probability above 0.5.

    Green where all known classes are right, red where not; of a class that is not known, nothing is shown. With a
    layout, the order is a thin line through the patches' centres, dark at its beginning.
    """
    count = min(_MOST, images_BCHW.shape[0])
    figure, every = panels(count, side=1.7, below=0.4)
    target_BK, logits_BK = target_BK[:count].cpu(), logits_BK[:count].detach().cpu()
    known_BK = ~target_BK.isnan()
    true_BK, said_BK = (target_BK > 0.5) & known_BK, (logits_BK > 0) & known_BK
    for number, panel in enumerate(every):
        draw_image(panel, images_BCHW[number])
        true, said = (listed(names, row_BK[number]) for row_BK in (true_BK, said_BK))
        right = bool((true_BK[number] == said_BK[number]).all())
        panel.set_title(f"{true}\n→ {said}", fontsize=7, color="tab:green" if right else "tab:red")
        if layout is not None:
            draw_order(panel, layout, number, *images_BCHW.shape[-2:])
    save_figure(figure, path)


def listed(names: Sequence[str], there_K: Tensor) -> str:
    """The names of the classes that are there, cut where they are too many for a title; `nothing` of none."""
    chosen = [name for name, there in zip(names, there_K.tolist(), strict=True) if there]
    return shorten(", ".join(chosen), _LETTERS, placeholder=" …") if chosen else "nothing"
