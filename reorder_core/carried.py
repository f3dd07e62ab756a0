"""An order carried to another grid: a place keeps its share of height, width and time, and so its turn.

N patches of the first grid, M of the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.stats import binned_statistic_dd

from reorder_core.grid import Grid
from reorder_core.permutation import validate


def carry(perm_N: Any, grid: Grid, to: Grid) -> NDArray[np.int64]:
    """The order of `grid` on the grid `to`, int64 [M]; on an equal grid it is the order itself.

    Both grids lie over the same image. A patch of the new grid is read in its turn: the mean slot of the old patches
    whose centres lie in it, and where none does (the new grid is finer), the slot of the old patch that its centre lies
    in. Patches with the same turn go in the direction in which the old order passed (their slot between the old
    centres, bilinear), and then by their number.

    So a coarser grid reads a raster scan as a raster scan; on a finer one, the patches of one old patch follow each
    other, as a raster scan in which every patch stands for a block of patches.
    """
    order_N = validate(perm_N, grid.size, what="the order to be carried")
    if grid == to:
        return np.asarray(order_N, dtype=np.int64)
    old, new = ((each.frames, each.rows, each.columns) for each in (grid, to))
    slot_FRC = np.argsort(order_N).reshape(old).astype(np.float64)
    centre_M3 = np.stack(np.meshgrid(*_centres(new, old), indexing="ij"), axis=-1).reshape(-1, 3)
    # rounded, so that readings which differ by rounding alone count as equal
    between_M = np.round(map_coordinates(slot_FRC, centre_M3.T, order=1, mode="nearest"), 9)
    cell_M3 = np.floor(centre_M3 + 0.5).astype(np.int64)
    nearest_M = slot_FRC[tuple(np.clip(cell_M3, 0, np.array(old) - 1).T)]
    mean_M = _mean_inside(slot_FRC, old, new).ravel()
    turn_M = np.round(np.where(np.isnan(mean_M), nearest_M, mean_M), 9)
    order_M: NDArray[np.int64] = np.lexsort((np.arange(to.size), between_M, turn_M)).astype(np.int64)
    return order_M


def _centres(of: tuple[int, ...], measured: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Along each axis, the centres of `of` parts in units of `measured` parts, whose own centres are 0, 1, 2, …"""
    return [(np.arange(parts) + 0.5) * units / parts - 0.5 for parts, units in zip(of, measured, strict=True)]


def _mean_inside(slot_FRC: NDArray[np.float64], old: tuple[int, ...], new: tuple[int, ...]) -> NDArray[np.float64]:
    """The mean slot of the old centres inside each new patch; NaN where there is none."""
    points_N3 = np.stack(np.meshgrid(*_centres(old, new), indexing="ij"), axis=-1).reshape(-1, 3)
    edges = [np.arange(parts + 1) - 0.5 for parts in new]
    points_N3 = np.round(points_N3, 9)
    mean: NDArray[np.float64] = binned_statistic_dd(points_N3, slot_FRC.ravel(), "mean", edges).statistic
    return mean
