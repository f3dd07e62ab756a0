"""The pictures: how far each order moves the output, and the retention curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from reorder_sensitivity.study import Finding

# Okabe and Ito's palette, told apart with any kind of colour vision; markers say the same again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#666666", "#000000")
_MARKERS = "osD^vPX*h"
_DPI = 120


def draw_orders(findings: Sequence[Finding], path: Path) -> Path:
    """Two panels over the orders: how far the output moves, and how the score changes, a marker a model."""
    names = [row.name for row in sorted(findings[0].reactions, key=lambda each: each.output)]
    names += [row.name for finding in findings for row in finding.reactions if row.name not in names]
    figure = Figure(figsize=(10, 1.6 + 0.32 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for number, finding in enumerate(findings):
        place_K = np.array([names.index(row.name) for row in finding.reactions])
        place_K = place_K + 0.5 * (number / max(1, len(findings) - 1) - 0.5) * (len(findings) > 1)
        look = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)], "ls": "none"}
        left.errorbar(
            [row.output for row in finding.reactions],
            place_K,
            xerr=[
                [min(row.spread, row.output) for row in finding.reactions],
                [row.spread for row in finding.reactions],
            ],
            label=finding.label,
            ms=5,
            lw=1,
            **look,
        )
        low_high = [
            [row.change.mean - row.change.low for row in finding.reactions],
            [row.change.high - row.change.mean for row in finding.reactions],
        ]
        right.errorbar([row.change.mean for row in finding.reactions], place_K, xerr=low_high, ms=5, lw=1, **look)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_xlabel("how far the summary moves, relative to its length")
    right.set_xlabel(f"change of {findings[0].metric} (95 % over images)")
    right.axvline(0, color="#999999", lw=0.8)
    for axis in (left, right):
        axis.grid(axis="y", color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    if len(findings) > 1:
        figure.legend(loc="outside upper center", ncols=min(5, len(findings)), frameon=False, fontsize=9)
    else:
        figure.suptitle(findings[0].label, fontsize=11)
    figure.savefig(path, dpi=_DPI, format="png")
    return path


def draw_retention(findings: Sequence[Finding], path: Path) -> Path:
    """A panel a model: influence of each slot, 1 on average; the band is the middle 90 % of the random orders."""
    across = min(3, len(findings))
    down = -(-len(findings) // across)
    figure = Figure(figsize=(4.2 * across, 2.9 * down + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
    for number, (axis, finding) in enumerate(zip(panels, findings, strict=False)):
        kept, colour = finding.retention, _COLOURS[number % len(_COLOURS)]
        N = kept.gradient_RN.shape[1]
        share_N = np.arange(N) / max(1, N - 1)
        low_N, high_N = np.percentile(kept.gradient_RN, [5, 95], axis=0)
        axis.fill_between(share_N, low_N, high_N, color=colour, alpha=0.15, lw=0)
        axis.plot(share_N, kept.gradient_N, color=colour, label="gradient")
        if kept.slots_S.size:
            place_S = kept.slots_S / max(1, N - 1)
            axis.plot(place_S, kept.occlusion_RS.mean(axis=0), "--", marker="o", ms=3, color=colour, label="occlusion")
        axis.axhline(1, color="#999999", lw=0.8)
        axis.set_ylim(bottom=0)
        axis.set_title(f"{finding.label}: first/last quarter {kept.first_to_last:.2f}", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in panels[len(findings) :]:
        axis.set_axis_off()
    figure.supxlabel("place in the sequence: first slot 0, last slot 1", fontsize=9)
    figure.supylabel("influence of the slot (mean 1)", fontsize=9)
    figure.savefig(path, dpi=_DPI, format="png")
    return path
