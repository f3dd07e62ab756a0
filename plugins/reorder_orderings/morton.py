"""Z-order: the bits of row and column interleaved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_orderings.curve import Curve


def morton(rows: int, columns: int) -> NDArray[np.int64]:
    """Patches by their Morton number, int64 [rows * columns] (Morton 1966); what falls outside is left out.

    Bit i of the column is bit 2i of the number, bit i of the row is bit 2i + 1.
    """
    number = (spread(np.arange(rows)) << 1)[:, None] | spread(np.arange(columns))[None, :]
    return np.argsort(number.reshape(-1), kind="stable")


def spread(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move bit i of each number to bit 2i."""
    out = np.zeros_like(values)
    for bit in range(int(values.max()).bit_length()):
        out |= ((values >> bit) & 1) << (2 * bit)
    return out


class Morton(Curve):
    """`morton` as a component."""

    def path(self, rows: int, columns: int) -> NDArray[np.int64]:
        return morton(rows, columns)
