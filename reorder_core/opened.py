"""A recipe or a run, opened for looking at: its data, model, task and order, with fresh or trained weights.

What commands of rooms rest on (`reorder sensitivity`, say): they need no training loop. C channels, H W pixels, N
patches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core import permutation
from reorder_core.catalogue import Catalogue
from reorder_core.errors import UsageError
from reorder_core.grid import Grid
from reorder_core.interfaces.context import Context
from reorder_core.interfaces.dataset import Batch, Dataset, Split, evenly
from reorder_core.interfaces.task import Task
from reorder_core.model import Model
from reorder_core.recipe import Recipe, load_recipe
from reorder_core.settings import ComponentRef

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Opened:
    """Everything that is needed to look at a model.

    order_N: the order it reads in, int64 [N]; of a run the one it ended with, which for a policy with an order for each
    image is that of its mean scores. steps: optimiser steps behind the weights, 0 for fresh ones. folder: of the run,
    None for a recipe. context: to build further components in.
    """

    recipe: Recipe
    catalogue: Catalogue
    context: Context
    dataset: Dataset
    model: Model
    task: Task
    order_N: NDArray[np.int64]
    order_name: str
    device: torch.device
    steps: int
    folder: Path | None

    @property
    def grid(self) -> Grid:
        return self.model.grid

    def batches(self, split: Split, images: int, batch_size: int = 64) -> Iterator[Batch]:
        """`images` of a split, evenly spread over it, in batches on the device, as its first epoch shows them."""
        from reorder_core.training.evaluate import to_device

        numbers = evenly(len(split), images)
        for start in range(0, len(numbers), batch_size):
            yield to_device(split.load(numbers[start : start + batch_size], 0), self.device)

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
    return _open(recipe, device, None)


def open_run(folder: Path | str, device: Device = "auto") -> Opened:
    """A run's model as its newest whole checkpoint has it (the averaged weights where there are any), in its order.

    folder: `runs/<name>/<id>/`, or that of a control below it. Raises `UsageError` where it is no run, or has no whole
    checkpoint.
    """
    place = Path(folder)
    saved = place / "recipe.yaml"
    if not saved.is_file():
        runs = sorted(each.parent for each in place.glob("*/recipe.yaml"))
        hint = f": did you mean {runs[-1]}?" if runs else ": give the folder that holds recipe.yaml and checkpoints/"
        raise UsageError(f"{place} is no folder of a run{hint}")
    return _open(load_recipe(saved), device, place)


def _open(recipe: Recipe, device: Device, folder: Path | None) -> Opened:
    from reorder_core.training.build import base_context, build_dataset, build_parts
    from reorder_core.training.devices import choose_device

    catalogue = Catalogue.load()
    dataset = build_dataset(recipe, catalogue)
    parts = build_parts(recipe, catalogue, dataset)
    order_N, name, steps = parts.order_N, parts.order_name, 0
    if folder is not None:
        steps = _take_weights(parts.learner, folder)
        order_N, name = _order_of_run(folder, order_N, name)
        _take_further_orders(parts.learner.model, folder)
    where = choose_device(device)
    learner = parts.learner.to(where).eval()
    return Opened(
        recipe=recipe,
        catalogue=catalogue,
        context=base_context(recipe, catalogue),
        dataset=dataset,
        model=learner.model,
        task=learner.task,
        order_N=order_N,
        order_name=name,
        device=where,
        steps=steps,
        folder=folder,
    )


def _take_weights(learner: Any, folder: Path) -> int:
    """Put the newest whole checkpoint into the learner; returns its step."""
    from reorder_core.training.checkpoint import Shelf, newest_whole, trained_weights

    snapshot = newest_whole(folder)
    Shelf(trained_weights(snapshot), dict(snapshot.state["extra"])).take_module("learner", learner)
    return int(snapshot.state["step"])


def _order_of_run(folder: Path, order_N: NDArray[np.int64], name: str) -> tuple[NDArray[np.int64], str]:
    """The order that a finished run ended with; of an unfinished one the last it wrote down."""
    finished, rows = folder / "order.json", folder / "metrics.jsonl"
    try:
        if finished.is_file():
            found = json.loads(finished.read_text(encoding="utf-8"))
            return permutation.validate(found["permutation"], len(order_N), what=str(finished)), str(found["name"])
        for line in reversed(rows.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            if row.get("event") == "order":
                last_N = permutation.validate(row["permutation"], len(order_N), what=str(rows))
                return last_N, name if np.array_equal(last_N, order_N) else f"step {row['step']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the order of the run {folder} cannot be read ({error}): is it whole?") from error
    return order_N, name


def _take_further_orders(model: Model, folder: Path) -> None:
    """The other orders that a finished run read at once, as it wrote them down."""
    finished = folder / "order.json"
    if model.further_RN is None or not finished.is_file():
        return
    try:
        found = json.loads(finished.read_text(encoding="utf-8"))["provenance"]["further_orders"]
        orders = [permutation.validate(each, model.grid.size, what=str(finished)) for each in found]
        if len(orders) != len(model.further_RN):
            raise ValueError(f"{len(orders)} further orders, and the model reads {len(model.further_RN)}")
        model.further_RN = torch.from_numpy(np.stack(orders))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the orders of the run {folder} cannot be read ({error}): is it whole?") from error
