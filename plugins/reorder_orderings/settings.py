"""Settings of the named curves and of their transformations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from reorder_core import Problem, ReorderError, RunFacts, Settings
from reorder_core.settings import ComponentRef, OrderingRef


class SnakeSettings(Settings):
    """Every second line is read backwards."""

    axis: Literal["rows", "columns"] = "rows"
    """whether the lines are rows or columns"""


class SpiralSettings(Settings):
    """A spiral between a corner and the middle."""

    inward: bool = True
    """true: from the corner to the middle; false: the same path from the middle to the corner"""
    clockwise: bool = True
    """which way the path winds from the corner towards the middle"""
    corner: Literal["top_left", "top_right", "bottom_right", "bottom_left"] = "top_left"
    """the corner at the outer end of the path"""


class RandomSettings(Settings):
    """One order drawn by chance, the same for the same seed and grid."""

    seed: int = Field(default=0, ge=0)
    """the number that the order is drawn from"""


class FileSettings(Settings):
    """An order that was saved before, by a run or by hand."""

    path: Path
    """an order.json (keys `permutation` and `grid`) or a .npy file of N patch numbers, from the working directory"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """Reads the file, so that an order for another grid is found before anything starts."""
        from reorder_orderings.saved import read_order

        try:
            read_order(self.path, facts.grid)
        except ReorderError as error:
            yield Problem("path", str(error))


class ReverseSettings(Settings):
    """Another ordering, read from its last slot to its first."""

    of: OrderingRef = ComponentRef("ordering", "row_major")
    """the ordering to read backwards"""


class TransposeSettings(Settings):
    """The ordering of the transposed grid, with rows and columns exchanged."""

    of: OrderingRef = ComponentRef("ordering", "row_major")
    """the ordering to mirror at the main diagonal"""


class FlipSettings(Settings):
    """Another ordering, seen in a mirror."""

    of: OrderingRef = ComponentRef("ordering", "row_major")
    """the ordering to mirror"""
    axis: Literal["horizontal", "vertical"] = "horizontal"
    """horizontal: left and right change places; vertical: top and bottom do"""


class RotateSettings(Settings):
    """Another ordering, its path turned clockwise."""

    of: OrderingRef = ComponentRef("ordering", "row_major")
    """the ordering to turn"""
    quarter_turns: Literal[1, 2, 3] = 1
    """how many times 90 degrees clockwise"""
