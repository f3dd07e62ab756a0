"""The pictures: saliency on the grid, and along the sequence.

N patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from reorder_core.permutation import invert

if TYPE_CHECKING:
    from reorder_saliency.study import Group, Measured, Study

# Okabe and Ito's palette, told apart with any kind of colour vision; line styles say the same again.
_LOOK = {"rollout": ("#0072B2", "-"), "gradient": ("#D55E00", "--"), "occlusion": ("#009E73", "-.")}
_DPI = 120
_PANELS = 24  # classes that are drawn: those with the most images


def draw_saliency(study: Study, path: Path) -> Path:
    """Above: in which slot each place is read, and its saliency by each method. Below: saliency along the sequence, in
    the run's own order and row by row."""
    grid, columns = study.opened.grid, 1 + len(study.measured)
    figure = Figure(figsize=(max(7.0, 2.7 * columns), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.0, 1.15))[:, 0]
    first, *panels = above.subplots(1, columns, squeeze=False)[0]
    slot_N = invert(study.orders["own"])
    image = first.imshow(slot_N.reshape(grid.rows, grid.columns), cmap="cividis")
    above.colorbar(image, ax=first, shrink=0.75, ticks=MaxNLocator(5, integer=True))
    first.set_title("read in slot", fontsize=9)
    for axis, each in zip(panels, study.measured, strict=True):
        image = axis.imshow(each.whole.saliency_N.reshape(grid.rows, grid.columns), cmap="magma", vmin=0)
        above.colorbar(image, ax=axis, shrink=0.75)
        axis.set_title(f"saliency by {each.method}", fontsize=9)
    for axis in (first, *panels):
        axis.set_xticks([])
        axis.set_yticks([])
    curves = below.subplots(1, 2, sharey=True)
    for axis, name in zip(curves, ("own", "row_major"), strict=True):
        title = f"in the run's own order ({study.opened.order_name})" if name == "own" else "row by row, as reference"
        _draw_curves(axis, study, name, title)
    below.supxlabel("slot: read first … read last", fontsize=9)
    figure.suptitle(f"{study.opened.recipe.name}, {study.images} images", fontsize=11)
    figure.savefig(path, dpi=_DPI, format="png")
    return path


def _draw_curves(axis: Any, study: Study, name: str, title: str) -> None:
    number = list(study.orders).index(name)
    for each in study.measured:
        along_N, at = each.whole.saliency_N[study.orders[name]], each.whole.placed[number]
        colour, style = _LOOK[each.method]
        label = f"{each.method}: ρ {at.correlation:+.2f} [{at.low:+.2f}, {at.high:+.2f}]"
        _draw_line(axis, along_N, colour, style, label)
    axis.axhline(1, color="#999999", lw=0.8)
    highest = max(float(each.whole.saliency_N.max()) for each in study.measured)
    axis.set_ylim(0, highest * (1.15 + 0.08 * len(study.measured)))  # the legend stands above the curves
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(title, fontsize=9)
    axis.set_ylabel("saliency (mean 1)", fontsize=9)
    axis.label_outer()
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)


def _draw_line(axis: Any, along_N: NDArray[np.float64], colour: str, style: str, label: str | None = None) -> None:
    """The curve itself; where it is long, faint behind its moving average over a sixteenth of the slots."""
    N = len(along_N)
    if N < 48:
        axis.plot(np.arange(N), along_N, style, color=colour, lw=1.3, marker="o", ms=2, label=label)
        return
    axis.plot(np.arange(N), along_N, color=colour, lw=0.6, alpha=0.35)
    axis.plot(np.arange(N), _moving_average(along_N, N // 16), style, color=colour, lw=1.6, label=label)


def _moving_average(values_N: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Over the slots within width / 2 of each; fewer at the ends."""
    kernel = np.ones(2 * (width // 2) + 1)
    total_N = np.convolve(values_N, kernel, mode="same")
    averaged_N: NDArray[np.float64] = total_N / np.convolve(np.ones(len(values_N)), kernel, mode="same")
    return averaged_N


def draw_classes(study: Study, measured: Measured, path: Path) -> Path:
    """A small panel a class: its saliency on the grid, each map with its own brightest place, and along the run's own
    order, on one scale for all. Where there are more classes than fit, those with the most images are drawn."""
    kept = sorted(range(len(measured.classes)), key=lambda number: -measured.classes[number].images)[:_PANELS]
    shown = [measured.classes[number] for number in sorted(kept)]
    across = min(6, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(max(6.0, 1.9 * across), 2.9 * down + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 * down, across, squeeze=False, height_ratios=(1.6, 1.0) * down)
    highest = max(float(group.saliency_N.max()) for group in shown)
    for number in range(across * down):
        row, column = divmod(number, across)
        pair = panels[2 * row, column], panels[2 * row + 1, column]
        if number < len(shown):
            _draw_class(*pair, study, measured.method, shown[number], highest)
        else:
            for axis in pair:
                axis.set_axis_off()
    more = f", {len(shown)} of {len(measured.classes)} classes" if len(shown) < len(measured.classes) else ""
    figure.suptitle(f"{study.opened.recipe.name}: saliency by {measured.method}{more}", fontsize=10)
    figure.supxlabel("slot of the run's own order: read first … read last", fontsize=8)
    figure.savefig(path, dpi=_DPI, format="png")
    return path


def _draw_class(above: Any, below: Any, study: Study, method: str, group: Group, highest: float) -> None:
    grid, at = study.opened.grid, group.placed[0]
    above.imshow(group.saliency_N.reshape(grid.rows, grid.columns), cmap="magma", vmin=0)
    above.set_title(f"{group.name[:18]} ({group.images})", fontsize=8)
    above.set_xticks([])
    above.set_yticks([])
    _draw_line(below, group.saliency_N[study.orders["own"]], *_LOOK[method])
    below.set_ylim(0, 1.05 * highest)
    below.set_title(f"ρ {at.correlation:+.2f} [{at.low:+.2f}, {at.high:+.2f}]", fontsize=7)
    below.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    below.tick_params(labelsize=6)
    below.spines[["top", "right"]].set_visible(False)
