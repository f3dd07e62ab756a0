"""A picture of captions: images with the order they were read in, what was said of them, and a reference.

B images, C channels, H W pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from reorder_captioning.metrics import exact_match, words
from reorder_core import Layout
from reorder_core.drawing.predictions import draw_image, draw_order, panels, save_figure

_MOST, _COLUMNS, _LETTERS = 16, 4, 34


def draw_captions(
    images_BCHW: Tensor,
    said: Sequence[str],
    references: Sequence[Sequence[str]],
    layout: Layout | None,
    path: Path,
) -> None:
    """Write a PNG of up to 16 images: above each what was said (green where it is one of the references) and, in
    grey, its first reference. With a layout, the order is a thin line through the patches' centres."""
    count = min(_MOST, images_BCHW.shape[0])
    figure, every = panels(count, columns=_COLUMNS, side=2.4, below=0.8)
    for number, panel in enumerate(every):
        draw_image(panel, images_BCHW[number])
        if layout is not None:
            draw_order(panel, layout, number, *images_BCHW.shape[-2:])
        right = exact_match(words(said[number]), [words(each) for each in references[number]])
        panel.set_title(_lines(said[number]), fontsize=7, color="tab:green" if right else "tab:red")
        panel.text(
            0.5, -0.03, _lines(references[number][0]), fontsize=7, color="grey", ha="center", va="top",
            transform=panel.transAxes,
        )  # fmt: skip
    save_figure(figure, path)


def _lines(text: str) -> str:
    """Broken to the width of a panel; a dollar sign is no formula."""
    return textwrap.fill(text or "(nothing)", _LETTERS).replace("$", r"\$")
