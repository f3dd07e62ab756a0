"""Where orders are tried: a recipe without its policy and controls, and every order on its grid.

N patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import ComponentRef, Grid, UsageError, write_json
from reorder_core.carried import carry
from reorder_core.finished import finished_recipe
from reorder_core.opened import open_recipe
from reorder_core.recipe import Recipe, load_recipe
from reorder_transfer.sources import Source, free_label, read_source, require_finished

OWN = "own"
_OF_A_MODEL = ("data", "patch", "positions", "backbone", "task")  # what a base must share with its recipe


@dataclass(frozen=True)
class Entry:
    """An order on a target's grid, int64 [N]. kind: that of its source, `ordering`, or `own`."""

    label: str
    kind: str
    order_N: NDArray[np.int64]
    grid: Grid

    @property
    def number(self) -> str:
        """Eight hexadecimal digits of the order itself: equal orders share their runs, whatever they are called."""
        return sha256(f"{self.grid}:{self.order_N.tolist()}".encode()).hexdigest()[:8]

    def write(self, folder: Path) -> Path:
        """The order as a file that the ordering `file` reads."""
        path = folder / f"{self.grid}-{self.number}.json"
        if not path.is_file():
            write_json(path, {"name": self.label, "grid": str(self.grid), "permutation": self.order_N.tolist()})
        return path


@dataclass(frozen=True)
class Target:
    """recipe: fixed in its own order. entries: the orders to try, its own last. bases: given ones, by their seeds."""

    label: str
    recipe: Recipe
    entries: tuple[Entry, ...]
    bases: Mapping[int, Path]

    @property
    def own(self) -> Entry:
        return self.entries[-1]

    def changed(self, entry: Entry, orders: Path, seed: int, **more: Any) -> Recipe:
        """The recipe that reads in this order, with this seed; more: further overrides."""
        ordering = {"name": "file", "path": str(entry.write(orders))}
        name = f"order-{entry.number}"
        return self.recipe.with_overrides({"name": name, "seed": seed, "ordering": ordering, **more})


def read_targets(
    paths: Sequence[Path],
    overrides: Sequence[str],
    sources: Sequence[Source],
    orders: Sequence[str],
    bases: Sequence[Path],
) -> list[Target]:
    """Every recipe with every order on its grid. Nothing is trained, and data is read only for orders made of it.

    Raises `UsageError` for what is no recipe, reads several orders at once, computes in another precision than the
    rest, or cannot take one of the orders.
    """
    alone = [*overrides, "policy=null", "controls=[]"]
    recipes = [_with_one_order(load_recipe(path, alone)) for path in paths]
    precisions = {recipe.training.precision for recipe in recipes}
    if len(precisions) > 1:
        raise UsageError(
            f"the recipes compute in different precision ({', '.join(sorted(precisions))}), and one process has one: "
            f"change it with -o training.precision=fp32, or transfer to one at a time"
        )
    targets: list[Target] = []
    for recipe in recipes:
        given = _bases(bases, recipe)
        label = free_label(recipe.name, {each.label for each in targets})
        targets.append(Target(label, recipe, _entries(recipe, sources, orders, [*given.values()]), given))
    return targets


def _with_one_order(recipe: Recipe) -> Recipe:
    if recipe.further_orderings:
        raise UsageError(
            f"{recipe.path}: the backbone reads {1 + len(recipe.further_orderings)} orders at once, and one is "
            f"carried: name a recipe whose `ordering` is a single one"
        )
    return recipe


def _entries(
    recipe: Recipe, sources: Sequence[Source], orders: Sequence[str], bases: Sequence[Path]
) -> tuple[Entry, ...]:
    grid = recipe.facts.grid
    for source in sources:
        if source.grid.frames != grid.frames:
            raise UsageError(
                f"the order of {source.place} is of {source.grid.frames} frames ({source.grid}), and {recipe.path} "
                f"reads {grid.frames} ({grid}): an order is carried between grids of as many frames"
            )
    found = [Entry(each.label, each.kind, carry(each.order_N, each.grid, grid), grid) for each in sources]
    for name in orders:  # found before the recipe is built, which may take long
        recipe.catalogue.find("ordering", name)
    opened = open_recipe(recipe, "cpu")
    for name in orders:
        order_N = opened.order_of(ComponentRef("ordering", name))
        found.append(Entry(free_label(name, {each.label for each in found}), "ordering", order_N, grid))
    own_N = read_source(bases[0]).order_N if bases else opened.order_N
    found = [replace(each, label=free_label(each.label, {OWN})) for each in found]
    return (*found, Entry(OWN, OWN, own_N, grid))


def _bases(places: Sequence[Path], recipe: Recipe) -> dict[int, Path]:
    """The given bases by their seeds. Raises `UsageError` for one of another recipe, or two that do not go together."""
    found: dict[int, Path] = {}
    for place in places:
        require_finished(place)
        base = finished_recipe(place)
        ours, theirs = recipe.resolved(), base.resolved()
        if other := [key for key in _OF_A_MODEL if ours[key] != theirs[key]]:
            raise UsageError(
                f"--base {place} is of another recipe than {recipe.path}: {' and '.join(other)} "
                f"{'differs' if len(other) == 1 else 'differ'}; give a run of this recipe, or -o the settings it had"
            )
        if base.seed in found:
            raise UsageError(f"--base {place} has the seed {base.seed}, as {found[base.seed]} has: give one a seed")
        found[base.seed] = place
    orders = {read_source(place).order_N.tobytes() for place in found.values()}
    if len(orders) > 1:
        raise UsageError("the bases ended in different orders: give those of one order, or one base at a time")
    return found
