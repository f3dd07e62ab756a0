"""Where orders come from: finished runs and saved order files.

N patches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid, ReorderError, UsageError
from reorder_core.finished import recipe_file
from reorder_core.permutation import validate


@dataclass(frozen=True)
class Source:
    """An order that was found elsewhere, int64 [N] on its own grid.

    kind: `learned` by a run's policy, `fixed` in a run without one, or of a `file`. place: where it was read.
    """

    label: str
    kind: str
    place: Path
    grid: Grid
    order_N: NDArray[np.int64]


def read_sources(places: Sequence[Path]) -> list[Source]:
    """All of them, those of the same name numbered. Raises `UsageError` as `read_source` does."""
    found: list[Source] = []
    for place in places:
        source = read_source(place)
        found.append(replace(source, label=free_label(source.label, {each.label for each in found})))
    return found


def free_label(label: str, taken: set[str]) -> str:
    """The label, with a number where it is taken: `spiral`, `spiral-2`."""
    number, free = 1, label
    while free in taken:
        number += 1
        free = f"{label}-{number}"
    return free


def read_source(place: Path) -> Source:
    """The order of a finished run's folder, or of a JSON file with `grid` and `permutation`.

    A run is called by its recipe where its order was learned, else by its ordering with `(fixed)`.
    Raises `UsageError` for what is neither, is not finished, or read several orders at once.
    """
    if place.is_dir():
        require_finished(place)
        return _read(place / "order.json", place)
    if not place.is_file():
        raise UsageError(f"{place}: there is no such run or order file")
    if place.suffix != ".json":
        raise UsageError(f"{place} is no order: give the folder of a finished run, or an order.json")
    return _read(place, place)


def require_finished(place: Path) -> None:
    """Raise `UsageError` where the folder is not that of a run which came to its end."""
    recipe_file(place)
    if not ((place / "result.json").is_file() and (place / "order.json").is_file()):
        raise UsageError(f"the run {place} is not finished: go on with `reorder run --resume`, then take its order")


def _read(path: Path, place: Path) -> Source:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        grid = Grid.parse(content["grid"])
        order_N = validate(content["permutation"], grid.size, what=f"the order in {path}")
        provenance = content.get("provenance", {})
        name, policy, further = str(content.get("name") or path.stem), provenance.get("policy"), "further_orders"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} holds no order: it must be an object with the keys 'permutation' and 'grid' ({error})"
        ) from error
    except ReorderError as error:
        raise UsageError(f"{path} holds no order that can be carried: {error}") from error
    if further in provenance:
        raise UsageError(
            f"{place} read several orders at once, and one is carried: save the one meant as an order.json"
        )
    if order_N.ndim != 1:
        raise UsageError(f"{path} holds {len(order_N)} orders: save a single one, a list of {grid.size} patches")
    kind = "learned" if policy else "file" if place.is_file() else "fixed"
    return Source(f"{name} (fixed)" if kind == "fixed" else name, kind, place, grid, order_N)
