"""The picture: every ordering's reduction with its interval, and beside it what its statistics say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reorder_core import written_aside
from reorder_prior.columns import columns_of
from reorder_prior.ranking import Finding

_INK, _PALE, _BLUE, _ORANGE = "#2b2b33", "#e4e4ea", "#0072B2", "#D55E00"
_DPI = 120


def draw(finding: Finding, path: Path) -> None:
    """A row for each ordering, the most compressible on top; a panel for each measure. Raises `OSError`."""
    ranking = finding.ranking
    panels = [column for column in columns_of(finding.measure.distances) if column.drawn]
    place_O = np.arange(len(ranking))
    figure = Figure(figsize=(3.6 + 1.5 * len(panels), 1.2 + 0.26 * len(ranking)), layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = figure.subplots(
        1, 1 + len(panels), sharey=True, squeeze=False, width_ratios=[2.2, *[1.0] * len(panels)]
    )[0]
    for number, ngram in enumerate(finding.measure.ngrams):
        found = [row.sizes[ngram].reduction for row in ranking]
        mean_O = 100 * np.array([each.mean for each in found])
        low_O = np.maximum(0, mean_O - 100 * np.array([each.low for each in found]))
        high_O = np.maximum(0, 100 * np.array([each.high for each in found]) - mean_O)
        look = {"fmt": "os"[number], "ms": 4.5, "lw": 1.2, "capsize": 2.5, "color": (_BLUE, _ORANGE)[number]}
        label = {1: "codes", 2: "pairs of codes"}[ngram]
        first.errorbar(mean_O, place_O, xerr=[low_O, high_O], label=label, **look)
    if len(finding.measure.ngrams) > 1:
        first.legend(fontsize=7, frameon=False, loc="best")
    first.set_title("reduction, %", fontsize=9, color=_INK)
    first.set_yticks(place_O, [row.ordering for row in ranking], fontsize=8)
    first.set_ylim(len(ranking) - 0.5, -0.5)
    for axis, column in zip(others, panels, strict=True):
        axis.plot([row.statistics[column.name] for row in ranking], place_O, "o", ms=4.5, color=_INK)
        axis.set_title(column.title, fontsize=9, color=_INK)
    for axis in (first, *others):
        axis.hlines(place_O, 0, 1, transform=axis.get_yaxis_transform(), color=_PALE, lw=0.7, zorder=0)
        axis.tick_params(axis="x", labelsize=7)
        axis.tick_params(axis="y", length=0)
        axis.locator_params(axis="x", nbins=4)
        axis.spines[["top", "right", "left"]].set_visible(False)
    tally, measure = finding.tally, finding.measure
    made = f"{finding.tokenizer['name']} ({measure.tokenizer.codes} codes), {finding.compressor['name']}"
    figure.suptitle(
        f"{finding.data}: {tally.images:,} images, {measure.grid} patches; {made}",
        fontsize=9,
        color=_INK,
        x=0.01,
        ha="left",
    )
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=_DPI, format="png")
