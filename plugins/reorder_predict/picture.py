"""The pictures: accuracy over each statistic, a point an order; and what likeness does to the images of each order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reorder_predict.between import points
from reorder_predict.within import Likeness

if TYPE_CHECKING:
    from reorder_predict.study import Findings
    from reorder_predict.table import Cell

# Okabe and Ito's palette, told apart with any kind of colour vision; markers say the same again.
_FIXED, _LEARNED = "#0072B2", "#D55E00"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#666666", "#000000")
_MARKERS = "osD^vPX*h"
_DPI = 120
# in shares of a panel: the width of a character, the height of a line, how far from its point a name stands
_CHARACTER, _LINE, _ASIDE = 0.0135, 0.05, 0.04
_REACH = 8  # lines up and down that a name may be moved


def draw_model(findings: Findings, model: str, path: Path) -> Path:
    """A panel a statistic; orders are named, bars run from the worst seed to the best, squares are learned orders."""
    rows = {row.statistic: row for row in findings.between if row.model == model}
    names = [*rows] or [*findings.columns]
    across = min(3, len(names)) or 1
    down = max(1, -(-len(names) // across))
    figure = Figure(figsize=(4.4 * across, 3.4 * down + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axis, name in zip(panels, names, strict=False):
        _scatter(axis, points(findings.table.of(model), findings.columns[name]))
        row = rows.get(name)
        title = name
        if row is not None:
            rho = row.found.spearman
            title += f"\nrho {rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}], {row.found.pairs} orders"
            title += f"\n{row.verdict}" if row.twin else ", too thin" if row.doubts else ""
        axis.set_title(title, fontsize=9)
    for axis in panels[len(names) :]:
        axis.set_axis_off()
    figure.suptitle(f"{model} on {findings.table.data}", fontsize=11)
    figure.supylabel(findings.table.metric, fontsize=9)
    figure.savefig(path, dpi=_DPI, format="png")
    return path


def _scatter(axis: Any, pairs: Sequence[tuple[Cell, float]]) -> None:
    for learned, colour, marker in ((False, _FIXED, "o"), (True, _LEARNED, "s")):
        chosen = [(cell, x) for cell, x in pairs if cell.order.learned is learned]
        if chosen:
            seeds = [[run.value for run in cell.runs] for cell, _ in chosen]
            bars = [[np.mean(each) - min(each) for each in seeds], [max(each) - np.mean(each) for each in seeds]]
            x_M, y_M = [x for _, x in chosen], [cell.value for cell, _ in chosen]
            axis.errorbar(x_M, y_M, yerr=bars, ls="none", marker=marker, ms=5, lw=1, color=colour)
    axis.margins(x=0.14, y=0.16)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    _name(axis, [x for _, x in pairs], [cell.value for cell, _ in pairs], [cell.order.name for cell, _ in pairs])


def _name(axis: Any, x_M: Sequence[float], y_M: Sequence[float], names: Sequence[str]) -> None:
    """Names beside the points, each with a thin line to its own."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    at_M2 = np.column_stack([(np.array(x_M) - left) / (right - left), (np.array(y_M) - bottom) / (top - bottom)])
    for number, (x, y, to_left) in enumerate(places(at_M2, [len(name) * _CHARACTER for name in names])):
        axis.annotate(
            names[number],
            (x_M[number], y_M[number]),
            xytext=(x, y),
            textcoords=axis.transAxes,
            ha="right" if to_left else "left",
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#999999", "shrinkA": 0, "shrinkB": 2},
        )


def places(at_M2: NDArray[np.float64], width_M: Sequence[float]) -> list[tuple[float, float, bool]]:
    """Where each name stands, and whether it ends there: the nearest place that covers no other name and no point.

    at_M2, width_M: points and widths in shares of the panel. Where there is no such place, the nearest inside.
    """
    taken: list[tuple[float, float, float]] = [(x - 0.01, x + 0.01, y) for x, y in at_M2]
    found = []
    for (x, y), width in zip(at_M2, width_M, strict=True):
        options = []
        for step in range(-_REACH, _REACH + 1):
            for to_left in (bool(x > 0.5), bool(x <= 0.5)):
                edge, height = x + (-_ASIDE if to_left else _ASIDE), y + step * _LINE
                low, high = (edge - width, edge) if to_left else (edge, edge + width)
                outside = not (low > -0.02 and high < 1.05 and 0 < height < 1)
                covers = any(_meets(low, high, height, other) for other in taken)
                options.append((outside + covers, outside, abs(step), float(edge), float(height), to_left, low, high))
        *_, edge, height, to_left, low, high = min(options, key=lambda option: option[:3])
        taken.append((low, high, height))
        found.append((edge, height, to_left))
    return found


def _meets(low: float, high: float, height: float, other: tuple[float, float, float]) -> bool:
    return low < other[1] and other[0] < high and abs(height - other[2]) < 0.9 * _LINE


def draw_images(rows: Sequence[Likeness], path: Path) -> Path:
    """The partial correlation of variation along the order with the score, a line an order, a marker a model."""
    orders = [*dict.fromkeys(row.order for row in rows)]
    models = [*dict.fromkeys(row.model for row in rows)]
    figure = Figure(figsize=(7.5, 1.6 + 0.34 * len(orders)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for number, model in enumerate(models):
        own = [row for row in rows if row.model == model]
        place_M = np.array([orders.index(row.order) for row in own], dtype=np.float64)
        place_M += 0.5 * (number / max(1, len(models) - 1) - 0.5) * (len(models) > 1)
        value_M = np.array([row.partial.value for row in own])
        low_M, high_M = (np.array([getattr(row.partial, end) for row in own]) for end in ("low", "high"))
        bars = np.maximum([value_M - low_M, high_M - value_M], 0)
        look: dict[str, Any] = {
            "color": _COLOURS[number % len(_COLOURS)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "ls": "none",
        }
        axis.errorbar(value_M, place_M, xerr=bars, ms=5, lw=1, label=model, **look)
    axis.axvline(0, color="#999999", lw=0.8)
    axis.set_yticks(range(len(orders)), orders)
    axis.set_ylim(len(orders) - 0.4, -0.6)
    axis.set_xlabel(
        "partial rank correlation of variation along the order with the score (95 %)\n"
        "left of 0: images whose consecutive patches are more alike do better",
        fontsize=9,
    )
    axis.grid(axis="y", color="#eeeeee")
    axis.spines[["top", "right"]].set_visible(False)
    if len(models) > 1:
        figure.legend(loc="outside upper center", ncols=min(4, len(models)), frameon=False, fontsize=9)
    else:
        figure.suptitle(models[0], fontsize=11)
    figure.savefig(path, dpi=_DPI, format="png")
    return path
