"""The runs of a recipe: the main one, and each control with its own recipe and perhaps its own order.

N patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reorder_core import permutation
from reorder_core.interfaces.context import Context
from reorder_core.interfaces.control import Control
from reorder_core.interfaces.dataset import Dataset
from reorder_core.recipe_checks import MAIN_RUN
from reorder_core.training.build import OrderFrom, base_context, permutation_of, prior_of

if TYPE_CHECKING:
    from reorder_core.catalogue import Catalogue
    from reorder_core.recipe import Recipe
    from reorder_core.settings import ComponentRef


@dataclass(frozen=True)
class Job:
    """One run. order_from: its order, where that is not its recipe's own; order_name: who made it."""

    name: str
    recipe: Recipe
    folder: Path
    order_from: OrderFrom | None = None
    order_name: str = ""


def main_job(recipe: Recipe, folder: Path) -> Job:
    """The recipe itself."""
    return Job(MAIN_RUN if recipe.policy is not None else recipe.ordering.ref.name, recipe, folder)


@dataclass(frozen=True)
class Controls:
    """Turns the controls that a recipe names into jobs: the same seed, data and budget, another order."""

    recipe: Recipe
    catalogue: Catalogue
    dataset: Dataset

    def jobs(self, folder: Path, learned_N: NDArray[np.int64] | None) -> Iterator[Job]:
        """learned_N: the main run's order; None before there is one, and any order then stands in for it."""
        taken: set[str] = set()
        for part in self.recipe.controls:
            name = _free(part.name, taken)
            place = folder / "controls" / name
            if part.ref.kind == "ordering":
                fixed = self.recipe.with_overrides({"policy": None, "controls": []})
                yield Job(name, fixed, place, self._by_ordering(part.ref), name)
                continue
            control: Control = self.catalogue.build(part.ref, base_context(self.recipe, self.catalogue))
            changed = self.recipe.with_overrides({"policy": None, "controls": [], **control.overrides})
            order_from = self._order_of(control, changed, learned_N)
            yield Job(name, changed, place, order_from, name if order_from else "")

    def check(self) -> None:
        """Make every control's order once, so that one that cannot be made is found before the first step."""
        for job in self.jobs(Path(), None):
            if job.order_from is not None:
                order_N = job.order_from(base_context(job.recipe, self.catalogue))
                permutation.validate(order_N, job.recipe.facts.grid.size, what=f"control '{job.name}'")

    def _by_ordering(self, ref: ComponentRef) -> OrderFrom:
        return lambda context: permutation_of(ref, self.catalogue, context, self.dataset)

    def _prior(self, context: Context) -> NDArray[np.int64]:
        """The order that the main run's policy starts from."""
        return permutation_of(prior_of(self.recipe), self.catalogue, context, self.dataset)

    def _order_of(self, control: Control, changed: Recipe, learned_N: NDArray[np.int64] | None) -> OrderFrom | None:
        """The control's order as a function of its context, which also knows the order the policy started from."""
        chosen = control.order_from
        if chosen is None:  # a policy of the control's own starts from where the main run's did
            own = changed.policy is not None and getattr(changed.policy.settings, "prior", None) is None
            return self._prior if own else None

        def order_from(context: Context) -> NDArray[np.int64]:
            known_N = None
            if control.needs == "finished":
                known_N = np.arange(context.grid.size, dtype=np.int64) if learned_N is None else learned_N
            prior_N = self._prior(context) if self.recipe.policy is not None else None
            return chosen(replace(context, prior_N=prior_N), known_N)

        return order_from


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number where an earlier control has it: `spiral`, `spiral-2`."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free)
    return free
