"""The grid of patches: the number of a patch and its place.

Patches are numbered row-major: `(frame * rows + row) * columns + column`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reorder_core.errors import ReorderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Grid:
    """A rectangle of patches, `rows` × `columns`, in `frames` frames (1 for an image)."""

    rows: int
    columns: int
    frames: int = 1

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "frames"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ReorderError(f"a grid's {name} must be a whole number of at least 1, not {value!r}")

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Read `14x14` (rows × columns) or `8x14x14` (frames × rows × columns)."""
        if not re.fullmatch(r"\d+([x×]\d+){1,2}", text):
            raise ReorderError(f"'{text}' is no grid: write rows x columns, for example 14x14")
        numbers = [int(part) for part in re.split("[x×]", text)]
        return cls(*numbers) if len(numbers) == 2 else cls(numbers[1], numbers[2], numbers[0])

    @classmethod
    def of_image(cls, height: int, width: int, patch: int) -> Grid:
        """The grid of an image of `height` × `width` pixels cut into square patches of `patch` pixels."""
        if patch < 1 or height % patch or width % patch:
            raise ReorderError(
                f"an image of {height}x{width} pixels is not divisible by patches of {patch}: "
                f"choose a patch size that divides both sides, or resize the images"
            )
        return cls(height // patch, width // patch)

    @property
    def size(self) -> int:
        """N, the number of patches."""
        return self.frames * self.rows * self.columns

    def __len__(self) -> int:
        return self.size

    def __str__(self) -> str:
        frames = f"{self.frames}x" if self.frames > 1 else ""
        return f"{frames}{self.rows}x{self.columns}"

    def patch(self, row: int, column: int, frame: int = 0) -> int:
        """The number of the patch at a place."""
        return (frame * self.rows + row) * self.columns + column

    def place(self, patch: int) -> tuple[int, int, int]:
        """(row, column, frame) of a patch."""
        frame, rest = divmod(patch, self.rows * self.columns)
        row, column = divmod(rest, self.columns)
        return row, column, frame

    def places(self) -> NDArray[np.int64]:
        """(row, column, frame) of every patch, int64 [N, 3], in patch order."""
        import numpy as np

        patch_N = np.arange(self.size, dtype=np.int64)
        frame_N, rest_N = np.divmod(patch_N, self.rows * self.columns)
        row_N, column_N = np.divmod(rest_N, self.columns)
        return np.stack([row_N, column_N, frame_N], axis=1)


def prime_factors(number: int) -> list[int]:
    """Ascending, none of 1: the stages in which a side of `number` shrinks to one, or grows from it."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
