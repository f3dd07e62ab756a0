"""The path of an order as a PNG picture: coloured from the first slot to the last, over the image if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from reorder_core.errors import ReorderError
from reorder_core.grid import Grid
from reorder_core.permutation import validate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#2b2b33"
_PALE = "#e4e4ea"
# Viridis without its pale end, which is hard to see on white.
_COLOURS = ListedColormap(mpl.colormaps["viridis"](np.linspace(0.0, 0.88, 256)))
_DPI = 120

Order = tuple[str, NDArray[np.int64], Grid]


def draw_png(
    perm_N: NDArray[np.int64], grid: Grid, path: Path | str, title: str | None = None, image: Any = None
) -> None:
    """Write the path of one order as a picture; frames stand side by side.

    image: the picture that the patches were cut from, [height, width] or [height, width, 3], drawn pale underneath.
    Raises `ReorderError` where it is no order of this grid, or where the file cannot be written.
    """
    rows, columns = grid.rows, _columns(grid)
    scale = min(4.2 / max(rows, columns), 0.9)
    size = (max(columns * scale, 1.6) + 0.4, max(rows * scale, 0.5) + 1.0)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axis = figure.subplots()
    _draw(axis, validate(perm_N, grid.size), grid, scale * 72, image)
    if title:
        axis.set_title(title, color=_INK, fontsize=11)
    _legend(figure, axis)
    _save(figure, path)


def draw_many_png(orders: Sequence[Order], path: Path | str, columns: int = 3) -> None:
    """Write several orders, each (title, perm_N, grid), into one picture, `columns` of them side by side."""
    if not orders:
        raise ReorderError("there is no order to draw: give at least one")
    across = min(columns, len(orders))
    down = -(-len(orders) // across)
    figure = Figure(figsize=(2.5 * across, 2.75 * down + 0.45), layout="constrained", facecolor="white")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis, (title, perm_N, grid) in zip(axes, orders, strict=False):
        cell = 2.3 * 72 / max(grid.rows, _columns(grid))
        _draw(axis, validate(perm_N, grid.size, f"the order '{title}'"), grid, cell, None)
        axis.set_title(title, color=_INK, fontsize=12)
    for axis in axes[len(orders) :]:
        axis.set_axis_off()
    _legend(figure, axes)
    _save(figure, path)


def _columns(grid: Grid) -> int:
    """Cells across: the frames stand side by side, one cell apart."""
    return grid.frames * (grid.columns + 1) - 1


def _draw(axis: Axes, perm_N: NDArray[np.int64], grid: Grid, cell: float, image: Any) -> None:
    """The grid, the path and its ends; `cell` is the side of a patch in points."""
    row_N, column_N, frame_N = grid.places()[perm_N].T
    point_N2 = np.stack([column_N + frame_N * (grid.columns + 1), row_N], axis=1).astype(float)
    _cells(axis, grid, image, lines=cell > 4)

    line_M22 = np.stack([point_N2[:-1], point_N2[1:]], axis=1)
    value_M = np.linspace(0.0, 1.0, max(len(line_M22), 1))[: len(line_M22)]
    jump_M = np.abs(np.diff(point_N2, axis=0)).max(1, initial=0) > 1
    width = float(np.clip(cell * 0.16, 0.5, 4.0))
    look: dict[str, Any] = {"cmap": _COLOURS, "norm": mpl.colors.Normalize(0, 1), "capstyle": "round"}
    # Where every step is a jump, thick lines would hide one another.
    fade = 0.55 if 2 * jump_M.sum() < jump_M.size else 0.3
    axis.add_collection(
        LineCollection(line_M22[jump_M], array=value_M[jump_M], linewidths=width * 0.4, alpha=fade, zorder=2, **look)
    )
    axis.add_collection(LineCollection(line_M22[~jump_M], array=value_M[~jump_M], linewidths=width, zorder=3, **look))
    # A patch that is only jumped to and from shows as a dot.
    lone_N = np.append(True, jump_M) & np.append(jump_M, True)
    slot_N = np.linspace(0.0, 1.0, len(point_N2))
    x_N, y_N = point_N2[lone_N].T
    axis.scatter(
        x_N, y_N, c=slot_N[lone_N], s=min(cell * 0.24, 8.0) ** 2, cmap=_COLOURS, vmin=0, vmax=1, lw=0, zorder=4
    )
    side = float(np.clip(cell * 0.5, 4, 12))
    ends: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 1.0, "zorder": 5, "clip_on": False}
    if len(point_N2) > 1:
        axis.plot(*point_N2[-1], "s", color=_COLOURS(1.0), markersize=side, **ends)
    axis.plot(*point_N2[0], "o", color=_COLOURS(0.0), markersize=side, **ends)


def _cells(axis: Axes, grid: Grid, image: Any, lines: bool) -> None:
    """The patches as pale squares, or the image beneath them."""
    for frame in range(grid.frames):
        left = frame * (grid.columns + 1) - 0.5
        right, bottom = left + grid.columns, grid.rows - 0.5
        if image is not None:
            axis.imshow(_pale(image), extent=(left, right, bottom, -0.5), zorder=0, interpolation="nearest")
        kind: dict[str, Any] = {"color": _PALE, "lw": 0.6, "zorder": 1}
        across = np.arange(grid.rows + 1) - 0.5 if lines else (-0.5, bottom)
        upright = left + np.arange(grid.columns + 1) if lines else (left, right)
        axis.hlines(across, left, right, **kind)
        axis.vlines(upright, -0.5, bottom, **kind)
    axis.set_xlim(-0.6, _columns(grid) - 0.4)
    axis.set_ylim(grid.rows - 0.4, -0.6)
    axis.set_aspect("equal")
    axis.set_axis_off()


def _pale(image: Any) -> NDArray[np.float64]:
    """An image as colours between 0 and 1, mixed with white so that the path stands out."""
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ReorderError(
            f"an image of shape {pixels.shape} cannot be drawn: give [height, width] or [height, width, 3]"
        )
    low, high = pixels.min(), pixels.max()
    span = high - low if high > low else 1.0
    return np.asarray(0.45 + 0.55 * (pixels - low) / span)


def _legend(figure: Figure, axes: Any) -> None:
    """The bar of colours: first slot to last."""
    shades = mpl.cm.ScalarMappable(norm=mpl.colors.Normalize(0, 1), cmap=_COLOURS)
    bar = figure.colorbar(shades, ax=axes, location="bottom", shrink=0.5, aspect=30, pad=0.03)
    bar.set_ticks([0, 1], labels=["● first", "last ■"])
    bar.ax.tick_params(length=0, colors=_INK, labelsize=9)
    bar.outline.set_visible(False)


def _save(figure: Figure, path: Path | str) -> None:
    """As a PNG of 256 colours, a third of the size."""
    canvas: Any = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    try:
        pixels.quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
    except OSError as error:
        raise ReorderError(f"cannot write the picture {path}: {error.strerror or error}") from error
