"""Which images make up which batch: a pure function of (seed, epoch, step), the same for any number of processes.

The global batch of a step is a slice of the epoch's shuffle; process r of P reads the r-th contiguous part of it.
So two processes with batches of b see exactly what one process with batches of 2b sees, and a resume needs no state.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from reorder_core.errors import ReorderError, UsageError
from reorder_core.interfaces.dataset import Batch, Dataset, Split

_EPOCH_STRIDE = 1_000_003  # a prime: (seed, epoch) pairs in use never meet


def shuffled(size: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch shows the images, int64 [size]; a pure function of its arguments."""
    generator = torch.Generator().manual_seed(seed + _EPOCH_STRIDE * (epoch + 1))
    return torch.randperm(size, generator=generator)


@dataclass(frozen=True, slots=True)
class Shares:
    """This process among the others, and its share of a batch."""

    process: int = 0
    processes: int = 1

    def part(self, images: int) -> slice:
        """The images of this process within a global batch of `images` (a multiple of the number of processes)."""
        share = images // self.processes
        return slice(self.process * share, (self.process + 1) * share)

    def chunk(self, images: int) -> range:
        """The images of this process when `images` are split as evenly as can be."""
        return range(self.process * images // self.processes, (self.process + 1) * images // self.processes)


def steps_in_epoch(images: int, global_batch: int, wanted: int | None) -> int:
    """Whole batches in an epoch, the incomplete last one dropped. Raises `UsageError` for too few images."""
    available = images // global_batch
    if available < 1:
        raise UsageError(
            f"the training split has {images} images, fewer than one batch of {global_batch} over all processes: "
            f"lower training.batch_size"
        )
    if wanted is not None and wanted > available:
        raise UsageError(
            f"training.steps_per_epoch is {wanted}, but {images} images make only {available} batches of "
            f"{global_batch}: lower it, or leave it out for the whole data set"
        )
    return wanted if wanted is not None else available


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the batches of a run."""

    images: int
    seed: int
    batch_size: int
    steps_per_epoch: int
    shares: Shares = Shares()

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.shares.processes

    def global_indices(self, step: int, shuffle_N: Tensor) -> Tensor:
        """The images of the whole batch of a step, given its epoch's shuffle."""
        start = step % self.steps_per_epoch * self.global_batch
        return shuffle_N[start : start + self.global_batch]

    def from_step(self, start: int, stop: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(epoch, images of the whole batch, images of this process) for the steps start … stop - 1."""
        epoch, shuffle_N = -1, torch.empty(0)
        for step in range(start, stop):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                shuffle_N = shuffled(self.images, self.seed, epoch)
            index_B = self.global_indices(step, shuffle_N)
            yield epoch, index_B, index_B[self.shares.part(len(index_B))]


def worker_count(setting: int | Literal["auto"], in_memory: bool, processes: int) -> int:
    """Worker processes of a loader: none where loading is cheap, else the setting, or this process's cores."""
    if in_memory:
        return 0
    if setting == "auto":
        return max(1, min(8, (os.cpu_count() or 1) // processes))
    return setting


class _Fetch(TorchDataset[Any]):
    """Loads whole batches in a worker; an error comes back as a value, so that its sentence arrives whole."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, key: Any) -> tuple[Any, ...] | ReorderError:
        epoch, indices = key
        try:
            batch = self.split.load(indices, epoch)
        except ReorderError as error:
            return error
        return batch.images_BCHW, batch.target, batch.index_B


def _same(item: Any) -> Any:
    return item


def load_all(
    dataset: Dataset, split: Split, keys: Iterable[tuple[int, list[int]]], workers: int, pin: bool
) -> Generator[Batch, None, None]:
    """A batch for each (epoch, indices) of `keys`, in their order, by worker processes where there are any.

    One loader serves a whole run, so its workers start once. Its generator is its own: the run's random state is the
    same whether or not a loader was started again.
    """
    if dataset.in_memory or workers == 0:
        for epoch, indices in keys:
            yield split.load(indices, epoch)
        return
    loader = DataLoader(
        _Fetch(split),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=_same,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=4,
    )
    for item in loader:
        if isinstance(item, ReorderError):
            raise item
        yield Batch(*item)


def training_batches(
    dataset: Dataset, plan: Plan, start: int, stop: int, workers: int = 0, pin: bool = False
) -> Iterator[tuple[Batch, Tensor]]:
    """(batch of this process, images of the whole batch int64 [B]) for the steps start … stop - 1."""
    keys = ((epoch, local_B.tolist()) for epoch, _, local_B in plan.from_step(start, stop))
    batches = load_all(dataset, dataset.train, keys, workers, pin)
    with closing(batches):
        for batch, (_, index_B, _) in zip(batches, plan.from_step(start, stop), strict=True):
            yield batch, index_B


def own_validation_batches(dataset: Dataset, training: Any, shares: Shares, pin: bool = False) -> Iterator[Batch]:
    """This process's part of the validation split, read as the recipe's section `training` says."""
    return validation_batches(
        dataset,
        shares.chunk(len(dataset.validation)),
        training.validate.batch_size or training.batch_size,
        worker_count(training.workers, dataset.in_memory, shares.processes),
        pin,
    )


def validation_batches(
    dataset: Dataset, indices: range, batch_size: int, workers: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """The validation images with these numbers, in order, the last batch as long as it comes."""
    keys = [(0, list(indices[start : start + batch_size])) for start in range(0, len(indices), batch_size)]
    return load_all(dataset, dataset.validation, keys, workers, pin)
