"""What a run came to: saved, read back, and set beside its controls.

B validation images, N patches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from reorder_core.bootstrap import Interval, paired_bootstrap
from reorder_core.errors import UsageError
from reorder_core.saved import write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console


_SHARES = ("top", "accuracy", "map", "miou", "exact", "precision", "recall", "f1")


@dataclass(frozen=True)
class RunResult:
    """One finished run (the main one or a control).

    order: the order it ended with, int64 [N], `order[slot] = patch`. metrics: of the last validation.
    score_B: the primary metric of each validation image, float [B]. seconds: wall time. folder: where it was saved.
    primary: the metric by which runs are compared. steps: optimiser steps taken. score: what score_B is of, where its
    mean is not the primary metric; else that metric.
    """

    name: str
    order: NDArray[np.int64]
    metrics: Mapping[str, float]
    score_B: NDArray[Any]
    seconds: float
    folder: Path
    images_per_second: float
    primary: str = "top1"
    higher_is_better: bool = True
    steps: int = 0
    score: str = ""
    comparison: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def value(self) -> float:
        """The primary metric; the mean score of an image where the metrics do not name it."""
        return float(self.metrics.get(self.primary, float(np.mean(self.score_B))))

    def as_dict(self) -> dict[str, Any]:
        """What `result.json` holds; the order stands in `order.json`, the scores in `scores.npy`."""
        return {
            "name": self.name,
            "primary": self.primary,
            "higher_is_better": self.higher_is_better,
            "score": self.score or self.primary,
            "metrics": {key: float(value) for key, value in self.metrics.items()},
            "images": int(np.size(self.score_B)),
            "steps": self.steps,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "comparison": [dict(row) for row in self.comparison],
        }

    def save(self) -> None:
        """Write `result.json` and `scores.npy` into the folder (the run itself writes `order.json`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / "scores.npy.part"
        with aside.open("wb") as file:
            np.save(file, np.asarray(self.score_B), allow_pickle=False)
        aside.replace(self.folder / "scores.npy")
        write_json(self.folder / "result.json", self.as_dict())

    @classmethod
    def load(cls, folder: Path) -> RunResult:
        """Read a finished run back from its folder. Raises `UsageError` where it is no finished run."""
        folder = Path(folder)
        try:
            saved = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            order = json.loads((folder / "order.json").read_text(encoding="utf-8"))["permutation"]
            score_B = np.load(folder / "scores.npy", allow_pickle=False)
            keys = ("name", "metrics", "seconds", "images_per_second", "primary", "higher_is_better", "steps")
            fields = {key: saved[key] for key in keys}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{folder} does not hold a finished run ({error}): name a folder that a run has written to its end"
            ) from error
        return cls(
            order=np.asarray(order, dtype=np.int64),
            score_B=score_B,
            folder=folder,
            score=saved.get("score", saved["primary"]),
            comparison=tuple(saved.get("comparison", ())),
            **fields,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The main run against one control: difference = main - control, in the unit of the primary metric."""

    control: RunResult
    difference: Interval

    def as_dict(self) -> dict[str, Any]:
        control = self.control
        return {
            "control": control.name,
            "metric": control.primary,
            "score": control.score or control.primary,
            "value": control.value,
            "difference": self.difference.as_dict(),
            "interval": "paired bootstrap over validation images, 95 % percentile",
            "seconds": control.seconds,
            "images_per_second": control.images_per_second,
        }


def compare(main: RunResult, controls: Sequence[RunResult], resamples: int = 10_000, seed: int = 0) -> list[Comparison]:
    """The main run's difference to each control, in the score of an image, with its paired bootstrap interval."""
    return [
        Comparison(control, paired_bootstrap(main.score_B, control.score_B, resamples, seed)) for control in controls
    ]


def write_comparison(main: RunResult, comparisons: Sequence[Comparison]) -> None:
    """Put the comparison into the main run's `result.json`."""
    rows = [comparison.as_dict() for comparison in comparisons]
    write_json(main.folder / "result.json", main.as_dict() | {"comparison": rows})


def is_share(metric: str) -> bool:
    """Whether a metric is a share between 0 and 1 that people read in percent."""
    return metric.startswith(_SHARES)


def show_metric(metric: str, value: float) -> str:
    """`67.3 %` for a share, four significant digits for anything else."""
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.4g}"


def show_difference(metric: str, interval: Interval) -> str:
    """`+3.1 [+1.0, +5.2]`, in points for a share."""
    scale, digits = (100, ".1f") if is_share(metric) else (1, ".4f")
    mean, low, high = (scale * part for part in (interval.mean, interval.low, interval.high))
    return f"{mean:+{digits}} [{low:+{digits}}, {high:+{digits}}]"


def show_seconds(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _rows(main: RunResult, comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    score = main.score or main.primary
    unit = " (points)" if is_share(score) else ""
    of = "" if score == main.primary else f" in {score}"
    header = ["run", main.primary, f"{main.name} minus this{of}{unit}", "time", "steps", "images/s"]

    def row(result: RunResult, difference: str) -> list[str]:
        speed = f"{result.images_per_second:,.0f}"
        value = show_metric(main.primary, result.value)
        return [result.name, value, difference, show_seconds(result.seconds), f"{result.steps:,}", speed]

    rows = [row(main, "")]
    rows += [row(item.control, show_difference(score, item.difference)) for item in comparisons]
    return header, rows


def _colour(main: RunResult, interval: Interval) -> str:
    if not interval.excludes_zero:
        return "dim"
    return "green" if (interval.mean > 0) == main.higher_is_better else "red"


def _caption(main: RunResult) -> str:
    return f"brackets: paired bootstrap 95 % interval over {np.size(main.score_B):,} validation images, one seed"


def closing_table(
    main: RunResult, controls: Sequence[RunResult], comparisons: Sequence[Comparison] | None = None
) -> Table:
    """The main run first, then each control with the main run's lead over it, as a rich table."""
    found = compare(main, controls) if comparisons is None else comparisons
    header, rows = _rows(main, found)
    table = Table(caption=_caption(main) if found else None, caption_justify="left", header_style="bold")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index != 2)
    table.add_row(*rows[0], style="bold")
    for row, comparison in zip(rows[1:], found, strict=True):
        table.add_row(*row[:2], Text(row[2], style=_colour(main, comparison.difference)), *row[3:])
    return table


def closing_text(
    main: RunResult, controls: Sequence[RunResult], comparisons: Sequence[Comparison] | None = None
) -> str:
    """The same table as plain aligned text, never cut and without colour."""
    found = compare(main, controls) if comparisons is None else comparisons
    header, rows = _rows(main, found)
    widths = [max(len(line[index]) for line in [header, *rows]) for index in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *rest])

    lines = [line(header), "  ".join("-" * width for width in widths), *map(line, rows)]
    return "\n".join([*lines, _caption(main)] if found else lines)


def print_closing(main: RunResult, controls: Sequence[RunResult], console: Console) -> list[Comparison]:
    """Compare, save the comparison, show the table, and say where everything is."""
    comparisons = compare(main, controls)
    write_comparison(main, comparisons)
    if console.is_terminal and not console.is_dumb_terminal:
        console.print(closing_table(main, controls, comparisons))
    else:
        console.out(closing_text(main, controls, comparisons), highlight=False)
    console.out(f"saved in {main.folder}", highlight=False)
    return comparisons
