"""The picture: a heat map of each way of trying, from → to, coloured by how clear the difference is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reorder_core import written_aside
from reorder_transfer.matrix import Row
from reorder_transfer.report import brackets, show

_DPI = 120
_FULL = 3.0  # half widths of the interval at which the colour is full
_COLOURS = "RdBu"  # red and blue are told apart with any kind of colour vision


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Rows are the orders, columns the recipes. A cell says the value, the difference and its interval over images.

    Where the difference is of something else than the metric, the cell names it. Its colour is the difference in half
    widths of its wider interval (over images or over seeds), blue for better: so that recipes with other metrics stand
    beside each other.
    """
    modes = [*dict.fromkeys(row.mode for row in rows)]
    sources = [*dict.fromkeys(row.source for row in rows)]
    targets = [*dict.fromkeys(row.to for row in rows)]
    size = (2.2 + (1.9 * len(targets) + 0.3) * len(modes), 1.7 + 0.75 * len(sources))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(modes), sharey=True, squeeze=False).ravel()
    image: Any = None
    for axis, mode in zip(panels, modes, strict=True):
        image = _panel(axis, [row for row in rows if row.mode == mode], sources, targets)
        axis.set_title(mode, fontsize=10)
    bar = figure.colorbar(image, ax=[*panels], location="bottom", shrink=0.6, aspect=40, pad=0.02)
    bar.set_label("difference in half widths of its interval; blue: better", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=_DPI, format="png")
    return path


def _panel(axis: Any, rows: Sequence[Row], sources: Sequence[str], targets: Sequence[str]) -> Any:
    strength = np.full((len(sources), len(targets)), np.nan)
    for row in rows:
        y, x = sources.index(row.source), targets.index(row.to)
        strength[y, x] = np.clip(row.strength, -_FULL, _FULL)
        ink = "white" if abs(strength[y, x]) > 0.75 * _FULL else "#2b2b33"
        axis.text(x, y, _text(row), ha="center", va="center", fontsize=7, color=ink)
    image = axis.imshow(strength, cmap=_COLOURS, vmin=-_FULL, vmax=_FULL, aspect="auto")
    axis.set_xticks(range(len(targets)), targets, fontsize=8)
    axis.set_yticks(range(len(sources)), sources, fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image


def _text(row: Row) -> str:
    value = f"{row.metric} {show(row.value)}"
    if row.images is None:
        return value if row.source == row.against else f"{value}\nsame order"
    of = "" if row.score == row.metric else f"{row.score} "
    return f"{value}\n{of}{show(row.images.mean, sign=True)}\n{brackets(row.images)}"
