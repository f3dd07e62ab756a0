"""A recipe or a run, opened for looking at: its data, model, task and order, with fresh or trained weights.

What commands of rooms rest on (`reorder sensitivity`, say): they need no training loop. C channels, H W pixels, N
patches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import permutation
from reorder_core.catalogue import Catalogue
from reorder_core.errors import UsageError
from reorder_core.finished import finished_recipe, recipe_file
from reorder_core.grid import Grid
from reorder_core.interfaces.context import Context
from reorder_core.interfaces.dataset import Batch, Dataset, Split, evenly
from reorder_core.interfaces.task import Task
from reorder_core.model import Model
from reorder_core.recipe import Recipe, load_recipe
from reorder_core.settings import ComponentRef

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class OpenedData:
    """The data set of a recipe or a run, without a model. context: to build components in."""

    recipe: Recipe
    catalogue: Catalogue
    context: Context
    dataset: Dataset
    device: torch.device

    @property
    def grid(self) -> Grid:
        return self.recipe.facts.grid

    def batches(self, split: Split, images: int, batch_size: int = 64) -> Iterator[Batch]:
        """`images` of a split, evenly spread over it, in batches on the device, as its first epoch shows them."""
        from reorder_core.training.evaluate import to_device

        numbers = evenly(len(split), images)
        for start in range(0, len(numbers), batch_size):
            yield to_device(split.load(numbers[start : start + batch_size], 0), self.device)


@dataclass(frozen=True)
class Opened(OpenedData):
    """Everything that is needed to look at a model.

    order_N: the order it reads in, int64 [N]; of a run the one it ended with, which for a policy with an order for each
    image is that of its mean scores. steps: optimiser steps behind the weights, 0 for fresh ones. folder: of the run,
    None for a recipe.
    """

    model: Model
    task: Task
    order_N: NDArray[np.int64]
    order_name: str
    steps: int
    folder: Path | None

    def start(self) -> tuple[NDArray[np.int64], str] | None:
        """The order [N] that the policy started from, as a run wrote it down, and its ordering's name; None without."""
        from reorder_core.training.build import prior_of
        from reorder_core.training.history import first_order

        if self.recipe.policy is None:
            return None
        ref = prior_of(self.recipe)
        written_N = None if self.folder is None else first_order(self.folder)
        return (self.order_of(ref) if written_N is None else written_N), ref.name

    def order_of(self, ref: ComponentRef) -> NDArray[np.int64]:
        """The order that an ordering gives on this grid, fitted to the data where it learns from them."""
        from reorder_core.training.build import permutation_of

        order_N = permutation_of(ref, self.catalogue, self.context, self.dataset)
        found: NDArray[np.int64] = permutation.validate(order_N, self.grid.size, what=f"the ordering '{ref.name}'")
        return found


def open_target(path: Path | str, overrides: Sequence[str] = (), device: Device = "auto") -> Opened:
    """What `path` names: the folder of a run with its trained weights, or a recipe's file with fresh ones."""
    place = Path(path)
    if place.is_dir():
        if overrides:
            raise UsageError(f"{place} is a run, whose recipe stands: overrides (-o) go with a recipe's file")
        return open_run(place, device)
    return open_recipe(load_recipe(place, overrides), device)


def open_recipe(recipe: Recipe, device: Device = "auto") -> Opened:
    """A recipe built with its seed, in its own order, its weights as they are before the first step."""
    from reorder_core.training.build import build_parts

    data = _open_data(recipe, device)
    parts = build_parts(recipe, data.catalogue, data.dataset)
    return _opened(data, parts.learner, parts.order_N, parts.order_name)


def open_run(folder: Path | str, device: Device = "auto") -> Opened:
    """A run's model as its newest whole checkpoint has it (the averaged weights where there are any), in its order.

    The orders of a finished run are those of its order.json: no ordering is built or fitted again, so that what it was
    made of may be gone. folder: `runs/<name>/<id>/`, or that of a control below it. Raises `UsageError` where it is no
    run, or has no whole checkpoint.
    """
    from reorder_core.training.build import base_context, build_learner, build_parts
    from reorder_core.training.checkpoint import take_trained

    place, saved = Path(folder), recipe_file(folder)
    if (place / "order.json").is_file():
        recipe = finished_recipe(place)
        data = _open_data(recipe, device)
        orders_RN, name = _orders_of_run(place, data.grid.size)
        torch.manual_seed(recipe.seed)
        further_from = partial(_further_of_run, orders_RN, place)
        own = base_context(recipe, data.catalogue).changed(dataset=data.dataset)  # weights are drawn from its generator
        learner, order_N = build_learner(recipe, data.catalogue, own, further_from), orders_RN[0]
        steps = take_trained(learner, place)
    else:
        recipe = load_recipe(saved)
        data = _open_data(recipe, device)
        parts = build_parts(recipe, data.catalogue, data.dataset)
        learner, steps = parts.learner, take_trained(parts.learner, place)
        order_N, name = _order_so_far(place, parts.order_N, parts.order_name)
    return _opened(data, learner, order_N, name, steps, place)


def open_data(folder: Path | str, device: Device = "cpu") -> OpenedData:
    """The data set of a finished run: nothing else of it is built, nor has to be there. Raises as `open_run` does."""
    return _open_data(finished_recipe(folder, built=("data",)), device)


def _open_data(recipe: Recipe, device: Device) -> OpenedData:
    from reorder_core.training.build import base_context, build_dataset
    from reorder_core.training.devices import choose_device

    catalogue = Catalogue.load()
    dataset = build_dataset(recipe, catalogue)
    context = base_context(recipe, catalogue).changed(dataset=dataset)
    return OpenedData(recipe, catalogue, context, dataset, choose_device(device))


def _opened(
    data: OpenedData, learner: Any, order_N: NDArray[np.int64], name: str, steps: int = 0, folder: Path | None = None
) -> Opened:
    learner = learner.to(data.device).eval()
    return Opened(
        recipe=data.recipe,
        catalogue=data.catalogue,
        context=data.context,
        dataset=data.dataset,
        device=data.device,
        model=learner.model,
        task=learner.task,
        order_N=order_N,
        order_name=name,
        steps=steps,
        folder=folder,
    )


def _orders_of_run(folder: Path, N: int) -> tuple[NDArray[np.int64], str]:
    """The order that a finished run ended with, and below it those that its model read besides, [R, N]; its name."""
    path = folder / "order.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        orders = [found["permutation"], *found["provenance"].get("further_orders", ())]
        return np.stack([permutation.validate(each, N, what=str(path)) for each in orders]), str(found["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the order of the run {folder} cannot be read ({error}): is it whole?") from error


def _further_of_run(orders_RN: NDArray[np.int64], folder: Path, wanted: int) -> torch.Tensor | None:
    """All orders of a finished run but the first, where its backbone reads several."""
    if len(orders_RN) != wanted:
        raise UsageError(
            f"the orders of the run {folder} cannot be read ({len(orders_RN) - 1} further orders, and the model reads "
            f"{wanted - 1}): is it whole?"
        )
    return torch.from_numpy(orders_RN[1:]) if wanted > 1 else None


def _order_so_far(folder: Path, order_N: NDArray[np.int64], name: str) -> tuple[NDArray[np.int64], str]:
    """The last order that an unfinished run wrote down."""
    path = folder / "metrics.jsonl"
    try:
        for line in reversed(path.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            if row.get("event") == "order":
                last_N = permutation.validate(row["permutation"], len(order_N), what=str(path))
                return last_N, name if np.array_equal(last_N, order_N) else f"step {row['step']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the order of the run {folder} cannot be read ({error}): is it whole?") from error
    return order_N, name
