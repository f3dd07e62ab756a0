"""What `metrics.jsonl` of a run folder tells, as arrays.

S logged steps, T times at which the policy was written down, N patches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reorder_core.errors import UsageError
from reorder_core.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class History:
    """The rows of a run, oldest first, by event."""

    steps: tuple[Mapping[str, Any], ...]
    validations: tuple[Mapping[str, Any], ...]
    orders: tuple[Mapping[str, Any], ...]
    slots: tuple[Mapping[str, Any], ...]

    @classmethod
    def load(cls, folder: Path) -> History:
        """Read `metrics.jsonl`; the half line that a kill may leave at the end is left out.

        Raises `UsageError` where there is no such file or another line is damaged.
        """
        rows = list(_rows(Path(folder) / "metrics.jsonl"))

        def of(event: str) -> tuple[Mapping[str, Any], ...]:
            return tuple(row for row in rows if row.get("event") == event)

        return cls(of("step"), of("validation"), of("order"), of("policy_slots"))

    def series(self, name: str, rows: tuple[Mapping[str, Any], ...] | None = None) -> tuple[Any, Any]:
        """(step, value) of one number, float64 each, where it was written and is finite."""
        found = [
            (float(row["step"]), float(row[name]))
            for row in (self.steps if rows is None else rows)
            if isinstance(row.get(name), int | float) and np.isfinite(row[name])
        ]
        pairs = np.asarray(found, dtype=np.float64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def phases(self) -> list[tuple[str, float, float]]:
        """(phase, first step, last step), one after the other and without gaps."""
        spans: list[tuple[str, float, float]] = []
        for row in self.steps:
            phase, step = str(row.get("phase", "")), float(row["step"])
            if spans and spans[-1][0] == phase:
                spans[-1] = (phase, spans[-1][1], step)
            else:
                spans.append((phase, spans[-1][2] if spans else step, step))
        return spans

    @property
    def has_policy(self) -> bool:
        """Whether a policy chose the order in any step."""
        return any(row.get("phase") != "fixed" for row in self.steps)

    def mean_slots(self) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
        """(step [T], slot [T, N], whether these are means over drawn orders).

        While a policy learns: the mean slot of each patch over the orders drawn. Before and after it, and all through
        where no such means were written: the slot in the best order.
        """
        drawn = {float(row["step"]): row["slots"] for row in self.slots}
        first, last = (min(drawn), max(drawn)) if drawn else (np.inf, -np.inf)
        best = {float(row["step"]): np.argsort(row["permutation"]) for row in self.orders}
        rows = drawn | {step: slots for step, slots in best.items() if step < first or step > last}
        steps = sorted(rows)
        return np.asarray(steps), np.asarray([rows[step] for step in steps], dtype=np.float64), bool(drawn)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name the folder of a run") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise UsageError(f"{path}:{number}: this line is no JSON; the file was altered or cut") from error
        if isinstance(row, dict):
            yield row


def control_histories(folder: Path) -> dict[str, History]:
    """The histories of the controls that ran, by name, in the order of the comparison where there is one."""
    found = {path.parent.name: path.parent for path in sorted((folder / "controls").glob("*/metrics.jsonl"))}
    known = [row["control"] for row in saved_comparison(folder) if row["control"] in found]
    names = [*known, *(name for name in found if name not in known)]
    return {name: History.load(found[name]) for name in names}


def saved_result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def saved_comparison(folder: Path) -> list[dict[str, Any]]:
    return list(saved_result(folder).get("comparison", ()))


def primary_metric(folder: Path) -> str:
    return str(saved_result(folder).get("primary", "top1"))


def run_name(folder: Path) -> str:
    return str(saved_result(folder).get("name", "this run"))


def final_order(folder: Path) -> tuple[Grid, NDArray[np.int64]]:
    path = folder / "order.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        grid, order = saved["grid"], saved["permutation"]
        parsed = Grid.parse(grid) if isinstance(grid, str) else Grid(**grid) if isinstance(grid, dict) else Grid(*grid)
        return parsed, np.asarray(order, dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no order ({error}): name the folder of a run") from error


def first_order(folder: Path) -> NDArray[np.int64] | None:
    """The order that the policy started from, the first one written down; None without a policy."""
    history = History.load(folder)
    return (
        np.asarray(history.orders[0]["permutation"], dtype=np.int64) if history.has_policy and history.orders else None
    )
