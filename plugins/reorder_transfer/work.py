"""What is to be made, and making it: every training and every reading of a base, each once.

Cells of one seed differ in their order alone: weights, batches and budget are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console

from reorder_core.evaluated import Evaluated
from reorder_core.opened import open_run
from reorder_core.recipe import Recipe
from reorder_transfer.cells import Workshop, mark, result
from reorder_transfer.target import Entry, Target


@dataclass(frozen=True)
class Job:
    """One cell of one seed. recipe: what is trained; None where a base reads as it is."""

    target: Target
    mode: str
    entry: Entry
    seed: int
    recipe: Recipe | None

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Equal orders are one job, whatever they are called."""
        return self.target.label, self.mode, self.entry.number, self.seed

    def __str__(self) -> str:
        return f"{self.mode}: {self.entry.label} → {self.target.label}, seed {self.seed}"


@dataclass(frozen=True)
class Made:
    """What a job came to, and the folder that holds it."""

    found: Evaluated
    folder: Path


def seeds_of(target: Target, asked: Sequence[int] | None) -> tuple[int, ...]:
    """Those of the given bases, those asked for, or the recipe's own."""
    return tuple(target.bases) or tuple(asked or (target.recipe.seed,))


def jobs(
    target: Target, modes: Sequence[str], seeds: Sequence[int] | None, epochs: int | None, out: Path
) -> Iterator[Job]:
    """All jobs of a target in the order they are done, each once. Their recipes are checked here, before any runs.

    A base is nothing but the run from scratch in the recipe's own order, and comes first. epochs: of finetune.
    """
    orders, seen = out / "orders", set[Any]()
    training = target.recipe.training
    further = epochs or ceil(training.epochs / 4)
    warm_up = training.schedule.warm_up * further / training.epochs
    shorter = {"training.epochs": further, "training.schedule.warm_up": min(warm_up, further)}
    for seed in seeds_of(target, seeds):
        wanted: list[tuple[str, Entry]] = []
        if modes != ("scratch",) and not target.bases:
            wanted.append(("scratch", target.own))
        for mode in modes:
            wanted += [(mode, entry) for entry in target.entries if mode != "scratch" or entry is not target.own]
        for mode, entry in wanted:
            more = shorter if mode == "finetune" else {}
            recipe = None if mode == "evaluate" else target.changed(entry, orders, seed, **more)
            job = Job(target, mode, entry, seed, recipe)
            if job.key not in seen:
                seen.add(job.key)
                yield job


def work(planned: Sequence[Job], shop: Workshop, out: Path, console: Console) -> Mapping[Any, Made]:
    """Do every job, or find it done; by their keys."""
    made: dict[Any, Made] = {}
    opened = lru_cache(maxsize=1)(partial(open_run, device=shop.device))  # the readings of a base follow each other
    for number, job in enumerate(planned, start=1):
        say = partial(_say, console, f"[{number}/{len(planned)}] {job}")
        made[job.key] = _do(job, replace(shop, say=say), out / job.target.label / f"seed-{job.seed}", made, opened)
    return made


def _do(job: Job, shop: Workshop, place: Path, made: Mapping[Any, Made], opened: Any) -> Made:
    if job.mode == "scratch":
        assert job.recipe is not None
        folder = shop.trained(job.recipe, place / "scratch")
        return Made(result(folder), folder)
    given = job.target.bases.get(job.seed)
    base = given or made[replace(job, mode="scratch", entry=job.target.own).key].folder
    if job.recipe is None:
        kept = place / f"evaluate-{mark(base)}" / f"order-{job.entry.number}"
        return Made(shop.read(partial(opened, base), job.entry.order_N, kept), kept)
    folder = shop.trained(job.recipe, place / f"finetune-{mark(base)}", weights_from=base)
    return Made(result(folder), folder)


def _say(console: Console, what: str, finished: bool) -> None:
    console.print(f"{what}{' (finished before)' if finished else ''}", highlight=False, markup=False, soft_wrap=True)
