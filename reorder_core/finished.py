"""The recipe of a finished run, as its folder holds it. Free of torch and numpy.

What the run's orderings were made of may be gone since: an order's file, the run that a saliency was measured in. The
order itself stands in `order.json`, so that nobody has to make it, or to check what it was made of, again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from reorder_core.errors import UsageError
from reorder_core.recipe import Recipe, load_recipe

#: The parts that opening a finished run builds.
BUILT = ("data", "backbone", "task")


def recipe_file(folder: Path | str) -> Path:
    """The recipe's file in the folder of a run. Raises `UsageError` where the folder is none, with the likely one."""
    place = Path(folder)
    saved = place / "recipe.yaml"
    if not saved.is_file():
        runs = sorted(each.parent for each in place.glob("*/recipe.yaml"))
        hint = f": did you mean {runs[-1]}?" if runs else ": give the folder that holds recipe.yaml and checkpoints/"
        raise UsageError(f"{place} is no folder of a run{hint}")
    return saved


def finished_recipe(folder: Path | str, built: Collection[str] = BUILT) -> Recipe:
    """The recipe of a finished run; of its components only those of the keys `built` are asked for problems.

    The others were asked before the first step, and are settings to read by now. Raises `UsageError` where the folder
    is none of a run, and `RecipeError` for what is wrong with the rest.
    """
    return load_recipe(recipe_file(folder), asked=built)
