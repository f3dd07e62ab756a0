"""Models x orders -> accuracy: seeds of the same model and order averaged and counted.

N patches, S images of the validation split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid, UsageError
from reorder_predict.runs import Finished

_TOLD = 4  # settings that a label names at most
_GONE = object()


@dataclass(frozen=True)
class Order:
    """One order of the table. orders_KN: its permutations, int64 [K, N]: one, or a learned one for each run."""

    name: str
    learned: bool
    orders_KN: NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """One model in one order: the runs that differ in their seed only."""

    model: str
    order: Order
    runs: tuple[Finished, ...]

    @property
    def value(self) -> float:
        """The primary metric, averaged over the seeds."""
        return float(np.mean([run.value for run in self.runs]))

    @property
    def good(self) -> float:
        """The same, turned so that more is better."""
        return self.value if self.runs[0].higher_is_better else -self.value

    @property
    def good_S(self) -> NDArray[np.float64]:
        """The score of each image averaged over the seeds, turned so that more is better; float64 [S]."""
        sign = 1 if self.runs[0].higher_is_better else -1
        mean_S: NDArray[np.float64] = sign * np.mean([run.score_S for run in self.runs], axis=0)
        return mean_S


@dataclass(frozen=True)
class Table:
    """All cells; `of(model)` are those of one model, in the same succession of orders. root: of a folder of images."""

    data: str
    root: str | None
    grid: Grid
    metric: str
    models: tuple[str, ...]
    orders: tuple[Order, ...]
    cells: tuple[Cell, ...]

    def of(self, model: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.model == model]


def build_table(runs: Sequence[Finished], notes: list[str]) -> Table:
    """Group the runs; what was merged or left out is added to `notes`.

    Raises `UsageError` where the runs are not of one data set, grid and metric, or nothing differs in accuracy.
    """
    _refuse_other_data(runs)
    named = [(str(run.model["backbone"]["name"]), run.model) for run in runs]
    models = _labels(named, [json.dumps(run.model, sort_keys=True) for run in runs])
    orders = _orders(runs)
    grouped: dict[tuple[str, str], dict[int, Finished]] = {}
    for run, model in zip(runs, models, strict=True):
        seeds = grouped.setdefault((model, run.order_key), {})
        if run.seed in seeds:
            notes.append(f"{run.folder} is left out: {seeds[run.seed].folder} is the same model, order and seed")
        seeds.setdefault(run.seed, run)
    cells = [
        Cell(model, orders[key], tuple(seeds[seed] for seed in sorted(seeds)))
        for (model, key), seeds in grouped.items()
    ]
    names = [order.name for order in orders.values()]
    cells.sort(key=lambda cell: (models.index(cell.model), names.index(cell.order.name)))
    cells = _with_spread(cells, notes)
    return Table(
        data=str(runs[0].data["name"]),
        root=runs[0].data.get("root"),
        grid=runs[0].grid,
        metric=runs[0].metric,
        models=tuple(dict.fromkeys(cell.model for cell in cells)),
        orders=tuple(order for order in orders.values() if any(cell.order is order for cell in cells)),
        cells=tuple(cells),
    )


def _refuse_other_data(runs: Sequence[Finished]) -> None:
    first = runs[0]
    for run in runs[1:]:
        pairs = {"data": (first.data, run.data), "patch.size": (first.patch, run.patch), "grid": (first.grid, run.grid)}
        for key, (one, other) in pairs.items():
            if one != other:
                where, one, other = _difference(key, one, other)
                raise UsageError(
                    f"accuracies of different data sets cannot stand in one table: {where} is {one} in {first.folder} "
                    f"and {other} in {run.folder}: ask for each data set by itself"
                )
        if run.metric != first.metric or run.higher_is_better != first.higher_is_better:
            raise UsageError(
                f"the runs have different metrics ({first.metric} in {first.folder}, {run.metric} in {run.folder}): "
                f"ask for those with the same task"
            )
        if run.score_S.shape != first.score_S.shape:
            raise UsageError(
                f"{first.folder} has scores of {first.score_S.size} images and {run.folder} of {run.score_S.size}: "
                f"the validation split must be the same"
            )


def _difference(key: str, one: Any, other: Any) -> tuple[str, Any, Any]:
    """The first key in which two mappings differ, or the values themselves."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = ["name", *one, *other] if one.get("name") != other.get("name") else [*one, *other]
        for name in names:
            if one.get(name) != other.get(name):
                return _difference(f"{key}.{name}", one.get(name), other.get(name))
    return key, one, other


def _orders(runs: Sequence[Finished]) -> dict[str, Order]:
    """By key; learned ones last. A name that several orders have gets what sets them apart, or a number."""
    by_key: dict[str, list[Finished]] = {}
    for run in sorted(runs, key=lambda run: run.learned):
        by_key.setdefault(run.order_key, []).append(run)
    named = [(_preferred([run.order_name for run in members]), members[0].how or {}) for members in by_key.values()]
    names = _labels(named, [*by_key])
    found: dict[str, Order] = {}
    for name, (key, members) in zip(names, by_key.items(), strict=True):
        permutations = {run.order_N.tobytes(): run.order_N for run in members}
        found[key] = Order(name, members[0].learned, np.stack([*permutations.values()]))
    return found


def _preferred(names: Sequence[str]) -> str:
    """What one permutation is called that several runs call differently: an ordering's name before a control's."""
    from reorder_core.catalogue import Catalogue

    installed = {entry.component.name for entry in Catalogue.load().entries("ordering")} - {"file"}
    return min(dict.fromkeys(names), key=lambda name: name not in installed)


def _labels(named: Sequence[tuple[str, Mapping[str, Any]]], contents: Sequence[str]) -> list[str]:
    """A label for each: its name, and where things of one name differ the settings in which they do, or a number."""
    flat = [(name, _flat(settings)) for name, settings in named]
    labels = []
    for name, settings in flat:
        same = [other for other_name, other in flat if other_name == name]
        keys = sorted({key for one in same for key in one if any(other.get(key, _GONE) != one[key] for other in same)})
        told = ", ".join(f"{key.removeprefix('backbone.')} {settings.get(key, 'none')}" for key in keys[:_TOLD])
        told += ", …" if len(keys) > _TOLD else ""
        bare, closing = (name[:-1], ", ") if name.endswith(")") else (name, " (")
        labels.append(f"{bare}{closing}{told})" if told else name)
    return _apart(labels, contents)


def _apart(labels: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Numbers behind labels that stand for different contents still, as where too many settings differ to be named."""
    known: dict[str, list[str]] = {}
    found = []
    for label, content in zip(labels, contents, strict=True):
        seen = known.setdefault(label, [])
        if content not in seen:
            seen.append(content)
        number = seen.index(content) + 1
        found.append(label if number == 1 else f"{label} {number}")
    return found


def _flat(settings: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        return {key: json.dumps(settings) if isinstance(settings, list) else settings}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{key}.{name}" if key else str(name))
    return found


def _with_spread(cells: Sequence[Cell], notes: list[str]) -> list[Cell]:
    """The cells of models whose accuracy differs between orders. Raises `UsageError` where there is none."""
    kept = []
    reasons = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [cell for cell in cells if cell.model == model]
        values = {round(cell.value, 12) for cell in own}
        if len(own) < 3:
            few = "one order" if len(own) == 1 else "two orders"
            reasons.append(f"the model {model} has run in {few} only, and a correlation needs three")
        elif len(values) == 1:
            reasons.append(
                f"all {len(own)} accuracies of the model {model} are equal, so that nothing can predict them"
            )
        else:
            kept += own
    if not kept:
        raise UsageError(f"{'; '.join(reasons)}: train in more orders, or name runs whose model is sensitive to them")
    notes += reasons
    return kept
