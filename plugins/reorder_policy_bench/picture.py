"""The picture: the reward of the best order over samples, a panel for each problem, size and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reorder_policy_bench.summary import LEVELS

if TYPE_CHECKING:
    from reorder_policy_bench.row import Row

# Okabe and Ito's palette, told apart with any kind of colour vision; the dashes tell further rounds apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#666666", "#000000")
_DASHES = ("-", "--", ":", "-.")
_DPI = 120


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Lines are medians over the seeds, bands run from the worst seed to the best."""
    rows = [row for row in rows if row.trials]
    across = [*dict.fromkeys(row.conditions.problem for row in rows)]
    down = [*dict.fromkeys((row.conditions.size, row.conditions.noise) for row in rows)]
    names = [*dict.fromkeys(_name(row) for row in rows)]
    width, height = max(1, len(across)), max(1, len(down))
    figure = Figure(figsize=(4.6 * width + 0.4, 2.9 * height + 0.5 + 0.11 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(height, width, squeeze=False)
    for y, (size, noise) in enumerate(down):
        for x, problem in enumerate(across):
            axis = panels[y, x]
            axis.set_title(f"{problem}, {size} patches, noise {noise:g}", fontsize=9)
            for row in rows:
                if (row.conditions.problem, row.conditions.size, row.conditions.noise) == (problem, size, noise):
                    _line(axis, row, names.index(_name(row)))
            for level in (0.0, *LEVELS):
                axis.axhline(level, color="#bbbbbb", lw=0.7, zorder=0)
            axis.set_xscale("log")
            axis.spines[["top", "right"]].set_visible(False)
    handles: dict[str, Any] = {}
    for axis in panels.ravel():
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    if handles:
        figure.legend(
            [*handles.values()],
            [*handles],
            loc="outside lower center",
            ncols=min(4, len(handles)),
            frameon=False,
            fontsize=8,
        )
    figure.supxlabel("samples (evaluations of the reward)", fontsize=9)
    figure.supylabel("reward of the best order: 0 random, 1 optimum", fontsize=9)
    figure.savefig(path, dpi=_DPI, format="png")
    return path


def _name(row: Row) -> str:
    orders = row.trials[0].orders
    return f"{row.contender.label} ({orders} order{'s' * (orders != 1)})"


def _line(axis: Any, row: Row, number: int) -> None:
    looks = row.trials[0].looks[1:]  # step 0 has no place on a logarithm
    sample_T = np.array([look.step * row.trials[0].samples_a_step for look in looks])
    reward_ST = np.array([[look.reward for look in trial.looks[1:]] for trial in row.trials])
    colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
    axis.plot(sample_T, np.median(reward_ST, axis=0), dash, color=colour, lw=1.3, label=_name(row))
    axis.fill_between(sample_T, reward_ST.min(0), reward_ST.max(0), color=colour, alpha=0.12, lw=0)
