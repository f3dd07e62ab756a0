"""The arms of a bandit over curves: named curves, mirrored, transposed and read backwards, each order once.

A arms, N patches, `order[slot] = patch`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid, Ordering, UnsupportedGrid, UsageError
from reorder_core.permutation import validate


@dataclass(frozen=True)
class Arms:
    """orders_AN: int64 [A, N], all different, the prior first. names: `hilbert transpose reverse`, one an arm."""

    orders_AN: NDArray[np.int64]
    names: tuple[str, ...]


def arms(
    prior_N: NDArray[np.int64], curves: Iterable[tuple[str, Ordering]], grid: Grid, variants: Collection[str]
) -> Arms:
    """The prior, then every curve in every combination of the variants; an order that was there before is left out.

    Raises `UsageError` for a curve that this grid does not allow.
    """
    found: dict[bytes, tuple[str, NDArray[np.int64]]] = {prior_N.tobytes(): ("prior", prior_N)}
    for name, curve in curves:
        shortest_first = sorted(_variants(name, curve, grid, variants), key=lambda variant: len(variant[0].split()))
        for label, order_N in shortest_first:
            found.setdefault(order_N.tobytes(), (label, order_N))
    return Arms(np.stack([order_N for _, order_N in found.values()]), tuple(name for name, _ in found.values()))


def _variants(
    name: str, curve: Ordering, grid: Grid, variants: Collection[str]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    choices = [(False, True) if each in variants else (False,) for each in ("transpose", "flip_rows", "flip_columns")]
    paths: Mapping[bool, NDArray[np.int64] | None] = {turned: _path(name, curve, grid, turned) for turned in choices[0]}
    for turned, rows, columns in product(*choices):
        path_N = paths[turned]
        if path_N is None:
            continue
        mirrored_N = _mirrored(path_N, grid, rows, columns)
        done = [*["transpose"] * turned, *["flip_rows"] * rows, *["flip_columns"] * columns]
        yield " ".join([name, *done]), mirrored_N
        if "reverse" in variants:
            yield " ".join([name, *done, "reverse"]), mirrored_N[::-1].copy()


def _path(name: str, curve: Ordering, grid: Grid, turned: bool) -> NDArray[np.int64] | None:
    """The curve's order on this grid; turned: that of the grid with rows and columns exchanged, turned back.

    None where the curve cannot be drawn on the turned grid.
    """
    inner = Grid(grid.columns, grid.rows, grid.frames) if turned else grid
    try:
        order_N: NDArray[np.int64] = validate(curve.permutation(inner), grid.size, f"the curve '{name}'")
    except UnsupportedGrid as error:
        if turned:
            return None
        raise UsageError(f"policy.curves: '{name}' cannot be an arm here: {error}") from error
    if not turned:
        return order_N
    frame_N, place_N = np.divmod(order_N, grid.rows * grid.columns)
    row_N, column_N = np.divmod(place_N, inner.columns)
    back_N: NDArray[np.int64] = (frame_N * grid.rows + column_N) * grid.columns + row_N
    return back_N


def _mirrored(order_N: NDArray[np.int64], grid: Grid, rows: bool, columns: bool) -> NDArray[np.int64]:
    """The same path with top and bottom (rows), left and right (columns) exchanged; frames stay where they are."""
    patch_FRC = np.arange(grid.size, dtype=np.int64).reshape(grid.frames, grid.rows, grid.columns)
    axes = [*[1] * rows, *[2] * columns]
    mirrored_N: NDArray[np.int64] = np.flip(patch_FRC, axes).reshape(-1)[order_N]
    return mirrored_N
