"""Prior tables as `reorder prior --write` saves them, matched to the orders of the runs.

N patches, K permutations of one entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import ComponentRef, Context, Grid, ReorderError, UsageError, permutation
from reorder_core.catalogue import Catalogue
from reorder_predict.table import Order, Table

_OF_THE_ORDER = ("neighbour_distance", "unit_steps")  # computed from the permutations here, for learned orders too
_TOLD = "ordering", "bytes", "interval", "statistics"


@dataclass(frozen=True)
class PriorTable:
    """One file. rows: ordering -> statistic -> value. source: tokenizer, compressor and n-gram in a few words.

    orders: the permutations, int64 [N], of the orderings that the file gives them of.
    """

    path: Path
    source: Mapping[str, str]
    rows: Mapping[str, Mapping[str, float]]
    orders: Mapping[str, NDArray[np.int64]]

    def values(self, orders: Sequence[Order], grid: Grid) -> dict[str, dict[str, float]]:
        """Statistic -> name of an order of the runs -> value, for the orders that stand in this table."""
        found: dict[str, dict[str, float]] = {}
        for ordering, statistics in self.rows.items():
            permutation_N = self.orders[ordering] if ordering in self.orders else permutation_of(ordering, grid)
            for order in orders:
                if matches(order, ordering, permutation_N):
                    for name, value in statistics.items():
                        found.setdefault(name, {})[order.name] = value
        return found


def matches(order: Order, ordering: str, permutation_N: NDArray[np.int64] | None) -> bool:
    """Whether a row of a prior table is about this order: by its permutations; by name where the row's is not known."""
    if permutation_N is None:
        return order.name == ordering
    return all(np.array_equal(order_N, permutation_N) for order_N in order.orders_KN)


def permutation_of(ordering: str, grid: Grid) -> NDArray[np.int64] | None:
    """The permutation of an ordering with its default settings; None where it learns from data or is not installed.

    A run's `snake` may go along columns and a prior's along rows: the name alone does not say that they are the same.
    """
    catalogue = Catalogue.load()
    context = Context(grid, builder=partial(Catalogue.build, catalogue)).changed()
    try:
        built = catalogue.build(ComponentRef("ordering", ordering), context)
        return None if hasattr(built, "fit") else np.asarray(built.permutation(grid), dtype=np.int64)
    except ReorderError:
        return None


def read_prior(path: Path, table: Table, patch: int) -> PriorTable:
    """Read one file. Raises `UsageError` where it is no prior table, or one of other data, patches or grid."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        data, grid, size = str(saved["data"]), Grid(*(int(side) for side in saved["grid"])), int(saved["patch"])
        rows = {str(row["ordering"]): dict(_numbers(row)) for row in saved["ranking"]}
        for ngram, sizes in saved.get("by_ngram", {}).items():  # of several, `reduction` is that of the first
            for name, told in sizes.items():
                rows[str(name)][f"reduction[{ngram}-gram]"] = float(told["reduction"])
                rows[str(name)].pop("reduction", None)
        source = {key: _words(saved[key]) for key in ("tokenizer", "compressor", "ngram")}
        orders = {str(name): permutation.validate(order, grid.size) for name, order in saved.get("orders", {}).items()}
    except OSError as error:
        raise UsageError(f"{path}: there is no such prior table ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, ReorderError) as error:
        raise UsageError(
            f"{path} is no prior table ({error!r}): make one with `reorder prior … --write {path}`"
        ) from error
    if grid != table.grid or size != patch:
        raise UsageError(
            f"{path} is about a grid of {grid} patches of {size} pixels and the runs read {table.grid} of {patch}: "
            f"make the prior from a recipe of these runs"
        )
    if not is_of(data, saved.get("folder"), table):
        about = f"{data}" + (f" ({saved['folder']})" if saved.get("folder") and saved["folder"] != data else "")
        raise UsageError(
            f"{path} is about the data set '{about}' and the runs are on '{table.data}': make it with "
            f"`reorder prior RUN/recipe.yaml --write {path}`"
        )
    return PriorTable(path, source, rows, orders)


def is_of(data: str, folder: str | None, table: Table) -> bool:
    """Whether a prior of this data set, or of the images in this folder, is about the data of the runs."""
    root = table.root
    if folder is None or root is None:
        return data == table.data
    below = Path(folder).expanduser().resolve()
    whole = Path(root).expanduser().resolve()
    return below == whole or whole in below.parents


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """All statistics of a row by name; those of several distances or n-grams as `name[key]`.

    Bytes say in other units what the reduction says, so that only one of them is tested.
    """
    loose = {key: value for key, value in row.items() if key not in _TOLD}
    for name, value in {**loose, **row["statistics"]}.items():
        if name in _OF_THE_ORDER:
            continue
        several = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
        if several is not None:
            yield from ((f"{name}[{key}]", float(each)) for key, each in several if _is_number(each))
        elif _is_number(value):
            yield name, float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _words(value: Any) -> str:
    """A component as its name and settings in a line."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key} {item}" for key, item in value.items() if key != "name")
        return f"{value['name']}{f' ({rest})' if rest else ''}"
    if isinstance(value, list):
        return "+".join(map(str, value)) + "-gram"
    return str(value)
