"""An ordering turns a grid into a permutation without learning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from reorder_core.grid import Grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class Ordering(Protocol):
    """`perm[slot] = patch`: the order in which a sequence model reads the patches of a grid.

    An ordering that learns from data also has `fit(images, grid, generator) -> None`, called once before training
    with a NumPy array of images [n, channels, height, width], evenly spread over the training split; its fitted order
    is saved in `order.json`.
    One that chooses among other orderings may say which in `chosen: str`, for `order.json` and the table.
    """

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The order, int64 [N], a bijection of 0 … N-1; deterministic: the same grid gives the same order.

        Raises `UnsupportedGrid` where the ordering makes no sense for this grid.
        """
        ...
