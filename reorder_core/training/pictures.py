"""The pictures of a run, made from the files of its folder and nothing else, so that they can be made again later.

N patches, T times at which the policy was written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib.figure import Figure

from reorder_core.drawing import draw_many_png
from reorder_core.errors import UsageError
from reorder_core.training.history import (
    History,
    control_histories,
    final_order,
    first_order,
    primary_metric,
    run_name,
    saved_comparison,
)
from reorder_core.training.report import RunResult, is_share, show_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Okabe and Ito's palette: told apart with any kind of colour vision; line styles say the same again.
_MAIN = "#0072B2"
_OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#666666")
_STYLES = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
_PHASES = {
    "warm_up": ("warm-up", "#F3E9C8"),
    "learn": ("learning", "#F1DCE8"),
    "frozen": ("frozen", "#DCEBF5"),
    "fixed": ("fixed order", "#F2F2F2"),
}
_DPI = 120


def draw_pictures(folder: Path) -> list[Path]:
    """Every picture that this run folder has the data for, in `pictures/`; returns their paths.

    curves.png; order.png; policy_slots.png where a policy was written down; comparison.png where there are controls.
    """
    folder = Path(folder)
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    history = History.load(folder)
    drawn = [draw_curves(folder, pictures / "curves.png"), draw_orders(folder, pictures / "order.png")]
    if history.has_policy and len(history.mean_slots()[0]) > 1:
        drawn.append(draw_policy_slots(folder, pictures / "policy_slots.png"))
    if saved_comparison(folder):
        drawn.append(draw_comparison(folder, pictures / "comparison.png"))
    return drawn


def draw_curves(folder: Path, path: Path) -> Path:
    """Loss, primary metric, reward and temperature over steps, the phases behind them, controls beside them."""
    history, controls, primary = History.load(folder), control_histories(folder), primary_metric(folder)
    panels = [("loss", "training loss"), (primary, f"validation {primary}")]
    panels += [(name, name) for name in ("reward", "temperature") if history.series(name)[1].any()]
    figure = Figure(figsize=(8.5, 1.2 + 1.9 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, label) in zip(axes, panels, strict=True):
        _band_phases(axis, history, labelled=axis is axes[0])
        for index, (other_name, other) in enumerate(controls.items()):
            _draw_series(axis, other, name, other_name, *_look(index))
        _draw_series(axis, history, name, run_name(folder) if controls else "", _MAIN, "-")
        axis.set_ylabel(label)
        if is_share(name):
            axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axis.margins(x=0.01)
        _calm(axis)
    axes[-1].set_xlabel("step")
    if controls:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles[-1:] + handles[:-1], labels[-1:] + labels[:-1], loc="outside lower center", ncols=4, frameon=False
        )
    return _save(figure, path)


def _look(index: int) -> tuple[str, Any]:
    return _OTHERS[index % len(_OTHERS)], _STYLES[index % len(_STYLES)]


def _draw_series(axis: Axes, history: History, name: str, label: str, colour: str, style: Any) -> None:
    main = style == "-"
    width, above = (2.2, 3) if main else (1.4, 2)
    step_T, value_T = history.series(name)
    if name != "loss" and not len(step_T):
        step_T, value_T = history.series(name, history.validations)
        axis.plot(step_T, value_T, color=colour, ls=style, lw=width, marker="o", ms=3.5, label=label, zorder=above)
        return
    if main and name in ("loss", "reward"):
        axis.plot(step_T, value_T, color=colour, lw=0.6, alpha=0.3, zorder=above)
    smooth_T = _smoothed(value_T) if name in ("loss", "reward") else value_T
    if main or name == "loss":
        axis.plot(step_T, smooth_T, color=colour, ls=style, lw=width, label=label, zorder=above)


def _smoothed(value_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred mean over a twentieth of the run, with shorter windows at the ends."""
    half = len(value_T) // 40
    total = np.cumsum(np.concatenate([np.zeros_like(value_T[:1]), value_T]), axis=0)
    index = np.arange(len(value_T))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(value_T))
    count = (high - low).reshape(-1, *(1 for _ in value_T.shape[1:]))
    smooth: NDArray[np.float64] = (total[high] - total[low]) / count
    return smooth


def _band_phases(axis: Axes, history: History, labelled: bool) -> None:
    for phase, start, stop in history.phases():
        name, colour = _PHASES.get(phase, (phase, "#F2F2F2"))
        axis.axvspan(start, stop, color=colour, lw=0, zorder=0)
        if labelled:
            place = ((start + stop) / 2, 1.02)
            axis.annotate(name, place, xycoords=axis.get_xaxis_transform(), ha="center", va="bottom", color="#444444")


def draw_policy_slots(folder: Path, path: Path) -> Path:
    """Where in the sequence each patch stood over time: maps of the grid at some times, and a line a patch."""
    history = History.load(folder)
    step_T, slot_TN, means = history.mean_slots()
    if len(step_T) < 2 or not history.has_policy:
        raise UsageError(f"{folder} has no history of a policy to draw: run a recipe with a policy")
    grid, _ = final_order(folder)
    slot_TN = _smoothed(slot_TN) if means else slot_TN
    shown = np.unique(np.linspace(0, len(step_T) - 1, 6).round().astype(int))
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=[1, 1.5]))
    maps = top.subplots(1, len(shown), squeeze=False)[0]
    for axis, time in zip(maps, shown, strict=True):
        image = axis.imshow(slot_TN[time].reshape(-1, grid.columns), cmap="cividis", vmin=0, vmax=grid.size - 1)
        axis.set_title(f"step {step_T[time]:,.0f}", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    what, where = ("mean slot", "") if means else ("slot", " in the best order")
    bar = top.colorbar(image, ax=list(maps), shrink=0.85, label="read first … last")
    bar.set_ticks([0, grid.size - 1])
    axis = bottom.subplots()
    colours = matplotlib.colormaps["cividis"](slot_TN[0] / max(1, grid.size - 1))
    for patch in range(grid.size):
        axis.plot(step_T, slot_TN[:, patch], color=colours[patch], lw=1.1 if grid.size <= 100 else 0.6)
    axis.set(xlabel="step", ylabel=f"{what} of each patch{where}", xlim=(step_T[0], step_T[-1]))
    axis.set_title("one line a patch, coloured by where it stood at first", fontsize=9, loc="left")
    axis.invert_yaxis()
    _calm(axis)
    top.suptitle(f"{what} of each patch{where} over training")
    return _save(figure, path)


def draw_comparison(folder: Path, path: Path) -> Path:
    """The primary metric of every run, and the main run's lead over each control with its interval."""
    main, rows = RunResult.load(folder), saved_comparison(folder)
    scale = 100 if is_share(main.primary) else 1
    score = main.score or main.primary
    score_scale, unit = (100, "points") if is_share(score) else (1, score)
    unit = unit if score in (unit, main.primary) else f"{unit} of {score}"
    place = np.arange(len(rows))[::-1]
    figure = Figure(figsize=(9, 1.6 + 0.42 * (len(rows) + 1)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.3])
    left.axvline(scale * main.value, color=_MAIN, lw=1, alpha=0.5)
    left.plot(scale * main.value, len(rows), "o", color=_MAIN, ms=8)
    left.plot([scale * row["value"] for row in rows], place, "s", color="#444444", ms=6)
    for height, value in [(len(rows), main.value), *zip(place, (row["value"] for row in rows), strict=True)]:
        left.annotate(
            show_metric(main.primary, value),
            (scale * value, height),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    left.set_yticks([len(rows), *place], [main.name, *(row["control"] for row in rows)])
    left.set_ylim(-0.6, len(rows) + 0.8)
    left.margins(x=0.15)
    left.set_xlabel(f"{main.primary} (%)" if scale == 100 else main.primary)
    for height, row in zip(place, rows, strict=True):
        _draw_interval(right, height, {key: score_scale * row["difference"][key] for key in ("mean", "low", "high")})
    right.axvline(0, color="black", lw=1)
    right.set_xlabel(f"{main.name} − control ({unit})")
    images = len(main.score_B)
    figure.suptitle(f"paired bootstrap 95 % intervals over {images:,} validation images, one seed", fontsize=10)
    for axis in (left, right):
        _calm(axis)
    return _save(figure, path)


def _draw_interval(axis: Axes, height: float, interval: Mapping[str, float]) -> None:
    """Filled where the interval leaves zero out, hollow where it does not."""
    clear = interval["low"] > 0 or interval["high"] < 0
    axis.plot([interval["low"], interval["high"]], [height, height], color=_MAIN, lw=2.2, solid_capstyle="butt")
    axis.plot(interval["mean"], height, "o", ms=8, mec=_MAIN, mew=1.8, mfc=_MAIN if clear else "white")
    axis.annotate(
        f"{interval['mean']:+.3g}",
        (interval["mean"], height),
        (0, 8),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )


def draw_orders(folder: Path, path: Path) -> Path:
    """The order that the run ended with; left of it the one that its policy started from, where it had one."""
    (grid, final_N), first_N = final_order(folder), first_order(folder)
    orders = [(run_name(folder), final_N, grid)]
    if first_N is not None:
        orders.insert(0, ("started from", first_N, grid))
    draw_many_png(orders, path)
    return path


def _calm(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="both", color="#DDDDDD", lw=0.5, zorder=0)
    axis.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, facecolor="white")
    return path
