"""An order saved as a file: `order.json` as a run writes it, or a NumPy array."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, Grid, ReorderError, UsageError
from reorder_core.permutation import validate
from reorder_orderings.settings import FileSettings


def read_order(path: Path, grid: Grid) -> NDArray[np.int64]:
    """The saved order, int64 [N], checked against the grid.

    A .npy file holds N patch numbers. A .json file is an object with the keys `permutation` (N patch numbers) and
    `grid` ("14x14", or its numbers of rows, columns and frames).
    Raises `UsageError`: no such file, cannot be read, no order in it, another grid, a repeated patch, a wrong length.
    """
    if not path.is_file():
        raise UsageError(f"there is no order file {path}: give the order.json of a run, or a .npy file")
    order, saved_grid = _read_npy(path) if path.suffix == ".npy" else _read_json(path)
    if saved_grid is not None and saved_grid != grid:
        raise UsageError(f"{path} holds an order for a grid of {saved_grid}, not {grid}: choose an order for this grid")
    try:
        order_N: NDArray[np.int64] = validate(order, grid.size, f"the order in {path}")
    except ReorderError as error:
        raise UsageError(str(error)) from error
    if order_N.ndim != 1:
        raise UsageError(f"{path} holds {order_N.shape[0]} orders: save a single one, a list of {grid.size} patches")
    return order_N


def _read_json(path: Path) -> tuple[Any, Grid | None]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error}): give an order.json as a run saves it") from error
    if not isinstance(content, dict) or "permutation" not in content or "grid" not in content:
        raise UsageError(f"{path} holds no order: it must be an object with the keys 'permutation' and 'grid'")
    return content["permutation"], _read_grid(content["grid"], path)


def _read_grid(value: Any, path: Path) -> Grid:
    try:
        if isinstance(value, str):
            return Grid.parse(value)
        if isinstance(value, dict):
            return Grid(**value)
        if isinstance(value, list):
            return Grid(*value)
    except (ReorderError, TypeError) as error:
        raise UsageError(f'{path} has no usable grid: write it as "14x14" (rows x columns)') from error
    raise UsageError(f'{path} has no usable grid: write it as "14x14" (rows x columns)')


def _read_npy(path: Path) -> tuple[Any, Grid | None]:
    try:
        return np.load(path, allow_pickle=False), None
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} cannot be read as a NumPy array ({error}): save it with numpy.save") from error


class File:
    """`read_order` as a component."""

    def __init__(self, settings: FileSettings, context: Context) -> None:
        self.path = settings.path

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The saved order, int64 [N]; an error where it is for another grid."""
        return read_order(self.path, grid)
