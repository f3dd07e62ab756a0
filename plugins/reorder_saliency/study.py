"""All that the command does: open, measure, write down, draw, show.

B images, N patches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from reorder_core import Batch, UsageError, output_folder, write_json
from reorder_core.bars import bars
from reorder_core.opened import Opened, open_run
from reorder_saliency.correlation import Placed, chance, placed
from reorder_saliency.measures import METHODS, maps, passes
from reorder_saliency.objective import Objective
from reorder_saliency.report import print_study


@dataclass(frozen=True)
class Group:
    """Images that are looked at together: all, or those of one class. saliency_N: mean map, 1 on average."""

    name: str
    images: int
    score: float
    saliency_N: NDArray[np.float64]
    placed: list[Placed]

    def as_json(self) -> dict[str, Any]:
        orders = [
            {"order": at.order, "correlation": at.correlation, "interval": [at.low, at.high]} for at in self.placed
        ]
        return {
            "name": self.name,
            "images": self.images,
            "score": self.score,
            "orders": orders,
            "saliency": self.saliency_N.tolist(),
        }


@dataclass(frozen=True)
class Measured:
    """One method: over all images, and over those of each class where it was asked."""

    method: str
    whole: Group
    classes: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """What was found of a run. orders: the run's own, its reverse, and others to hold it against, int64 [N] each.

    left_out: methods that the model does not allow, and why. small: classes of which fewer than two images were read.
    """

    run: Path
    opened: Opened
    images: int
    orders: Mapping[str, NDArray[np.int64]]
    measured: list[Measured]
    left_out: Mapping[str, str]
    small: list[str]

    @property
    def metric(self) -> str:
        """What the scores of `Group` are of: the task's primary metric, or what its score of an image is called."""
        return str(getattr(self.opened.task, "score", self.opened.task.primary))

    @property
    def chance(self) -> float:
        """95 % of random orders lie nearer to 0 than this."""
        return chance(self.opened.grid.size)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `saliency.json` has them."""
        opened = self.opened
        return {
            "run": str(self.run),
            "recipe": opened.recipe.name,
            "backbone": opened.recipe.backbone.ref.name,
            "order": opened.order_name,
            "trained_steps": opened.steps,
            "grid": [opened.grid.rows, opened.grid.columns],
            "images": self.images,
            "metric": self.metric,
            "chance": self.chance,
            "orders": {name: order_N.tolist() for name, order_N in self.orders.items()},
            "methods": [
                {"method": each.method, **each.whole.as_json(), "classes": [group.as_json() for group in each.classes]}
                for each in self.measured
            ],
            "left_out": dict(self.left_out),
            "classes_with_fewer_than_two_images": self.small,
        }


def run_study(
    run: Path,
    methods: Sequence[str],
    out: Path | None,
    as_json: bool,
    *,
    images: int,
    per_class: bool,
    seed: int,
    batch_size: int,
    device: Literal["auto", "cpu", "cuda", "mps"],
) -> int:
    """Measure a run and write the results; returns the exit code."""
    if not run.is_dir():
        raise UsageError(f"{run}: there is no such folder of a run: give runs/<name>/<id>")
    opened = open_run(run, device)
    if opened.grid.frames > 1:
        raise UsageError(f"saliency is of the patches of single images, and the run {run} reads {opened.grid} frames")
    batches = list(opened.batches(opened.dataset.validation, images, batch_size))
    groups, small = _groups(opened, batches, per_class)
    console = Console(stderr=as_json)
    orders = _orders(opened)
    found, left_out = _maps(opened, batches, methods, console)
    score_B = _scores(opened, batches)
    measured = []
    for method, map_BN in found.items():
        every = [_group(name, map_BN[member_B], score_B[member_B], orders, seed) for name, member_B in groups.items()]
        measured.append(Measured(method, every[0], every[1:]))
    study = Study(run, opened, len(score_B), orders, measured, left_out, small)
    folder = out or run / "saliency"
    _write(study, folder)
    if as_json:
        print(json.dumps(study.as_json(), indent=2))
    else:
        print_study(study, folder, console)
    return 0


def _maps(
    opened: Opened, batches: Sequence[Batch], methods: Sequence[str], console: Console
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """The maps [B, N] by each method. Where none was named, one that the model does not allow is left out, with why."""
    objective = Objective(opened, opened.order_N)
    found: dict[str, NDArray[np.float64]] = {}
    left_out: dict[str, str] = {}
    with bars(console) as progress:
        for method in [each for each in METHODS if not methods or each in methods]:
            bar = progress.add_task(method, total=passes(method, len(batches), opened.grid))
            try:
                found[method] = maps(method, objective, batches, partial(progress.advance, bar))
            except UsageError as error:
                if methods:
                    raise
                left_out[method] = str(error)
    return found, left_out


def _orders(opened: Opened) -> dict[str, NDArray[np.int64]]:
    """The run's own order and its reverse, row by row, and where its policy started from."""
    row_major_N = np.arange(opened.grid.size, dtype=np.int64)
    orders = {"own": opened.order_N, "own reversed": opened.order_N[::-1].copy(), "row_major": row_major_N}
    if (start := opened.start()) is not None and not np.array_equal(start[0], row_major_N):
        orders[f"start ({start[1]})"] = start[0]
    return orders


def _groups(
    opened: Opened, batches: Sequence[Batch], per_class: bool
) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """The numbers of the images of each group, all of them first; and the classes with fewer than two."""
    every_B = np.arange(sum(len(batch) for batch in batches))
    groups = {"all": every_B}
    if not per_class:
        return groups, []
    targets = [batch.target for batch in batches]
    whole = all(isinstance(each, torch.Tensor) and each.ndim == 1 and not each.is_floating_point() for each in targets)
    names = getattr(opened.dataset, "classes", ())
    if not whole or not names:
        name = opened.recipe.data.ref.name
        raise UsageError(f"--per-class: the images of '{name}' have no class of their own: leave it out")
    target_B = torch.cat(targets).cpu().numpy()
    small = []
    for number, name in enumerate(names):
        member_B = every_B[target_B == number]
        if len(member_B) < 2:
            small.append(str(name))
        else:
            groups[f"class {name}" if str(name) == "all" else str(name)] = member_B
    return groups, small


@torch.no_grad()
def _scores(opened: Opened, batches: Sequence[Batch]) -> NDArray[np.float64]:
    """The task's score of each image, [B]."""
    layout = Objective(opened, opened.order_N).layout
    task = opened.task
    found = [task.score_B(task.step(opened.model, batch, layout), batch).double().cpu().numpy() for batch in batches]
    return np.concatenate(found)


def _group(
    name: str,
    map_BN: NDArray[np.float64],
    score_B: NDArray[np.float64],
    orders: Mapping[str, NDArray[np.int64]],
    seed: int,
) -> Group:
    return Group(name, len(map_BN), float(score_B.mean()), map_BN.mean(axis=0), placed(map_BN, orders, seed=seed))


def _write(study: Study, folder: Path) -> None:
    from reorder_saliency.picture import draw_classes, draw_saliency

    with output_folder(folder):
        write_json(folder / "saliency.json", study.as_json())
        draw_saliency(study, folder / "saliency.png")
        for each in study.measured:
            if each.classes:
                draw_classes(study, each, folder / f"classes-{each.method}.png")
