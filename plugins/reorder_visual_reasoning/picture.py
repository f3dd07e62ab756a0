"""A picture of answers: images with their question, what was said, what is true, and the order they were read in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from torch import Tensor

from reorder_core import Batch, Layout
from reorder_core.drawing.predictions import draw_image, draw_order, panels, save_figure

_MOST = 16
_LINE = 30  # letters that fit above an image


def draw_prediction(batch: Batch, said: Sequence[str], score_B: Tensor, layout: Layout | None, path: Path) -> None:
    """Write a PNG of up to 16 images: green where the answer is right, yellow where half right, red where wrong."""
    count = min(_MOST, len(batch))
    figure, every = panels(count, columns=4, side=2.4, below=0.45)
    for number, panel in enumerate(every):
        question = batch.target[number]
        draw_image(panel, batch.images_BCHW[number])
        true = question.answers[0] if question.answers else "?"
        score = float(score_B[number])
        colour = "tab:green" if score == 1 else "tab:olive" if score > 0 else "tab:red"
        # a $ would begin a formula
        title = "\n".join([fill(question.text, _LINE), fill(f"{said[number]} (true: {true})", _LINE)]).replace(
            "$", r"\$"
        )
        panel.set_title(title, fontsize=8, color=colour)
        if layout is not None:
            draw_order(panel, layout, number, *batch.images_BCHW.shape[-2:])
    save_figure(figure, path)
