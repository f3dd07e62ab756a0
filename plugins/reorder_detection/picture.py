"""A picture of detections: true boxes dashed, said ones solid with class and score, the reading order under them.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from reorder_core import Layout
from reorder_core.drawing.predictions import draw_image, draw_order, panels, save_figure
from reorder_core.interfaces.targets import Objects
from reorder_detection.detections import Detections

_MOST = 16
#: Share of a panel's height that a line of text takes.
_ROOM = 0.05
_TRUE, _SAID, _CROWD = "tab:green", "tab:red", "tab:gray"


def draw_detections(
    images_BCHW: Tensor,
    target: Sequence[Objects],
    said: Sequence[Detections],
    classes: Sequence[str],
    layout: Layout | None,
    path: Path,
) -> None:
    """Write a PNG of up to 16 images: objects dashed and green (crowds grey), detections solid and red.

    classes: their names; a class without one is shown by its number.
    """
    count = min(_MOST, images_BCHW.shape[0])
    figure, every = panels(count, columns=4, side=2.6)
    for number, panel in enumerate(every):
        draw_image(panel, images_BCHW[number])
        if layout is not None:
            draw_order(panel, layout, number, *images_BCHW.shape[-2:])
        objects, found = target[number], said[number]
        crowds = [False] * len(objects) if objects.crowd_O is None else objects.crowd_O.tolist()
        for box, label, crowd in zip(objects.boxes_O4.tolist(), objects.label_O.tolist(), crowds, strict=True):
            _draw_box(panel, box, _CROWD if crowd else _TRUE, "--")
            below = box[3] <= (1 - _ROOM) * images_BCHW.shape[-2]
            panel.text(
                box[0], box[3], _name(classes, label),
                color=_TRUE, fontsize=6, va="top" if below else "bottom", clip_on=True,
            )  # fmt: skip
        for box, score, label in zip(
            found.boxes_O4.tolist(), found.score_O.tolist(), found.label_O.tolist(), strict=True
        ):
            _draw_box(panel, box, _SAID, "-")
            text = f"{_name(classes, label)} {score:.0%}"
            # above its box; inside where there is no room above
            above = box[1] >= _ROOM * images_BCHW.shape[-2]
            panel.text(box[0], box[1], text, color=_SAID, fontsize=6, va="bottom" if above else "top", clip_on=True)
        panel.set_title(objects.name or f"{len(objects)} objects, {len(found)} found", fontsize=7)
    save_figure(figure, path, dpi=130)


def _draw_box(panel: Axes, box: Sequence[float], colour: str, style: str) -> None:
    left, top, right, bottom = box
    panel.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linestyle=style, linewidth=1)
    )


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else str(label)
