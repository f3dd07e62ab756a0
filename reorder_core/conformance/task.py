"""The contract of a task. B images, N patches, D width, K classes, T tokens of a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reorder_core.conformance.building import (
    Buildable,
    Given,
    build,
    context,
    leaves_global_random_state,
    require,
)
from reorder_core.conformance.gradients import require_gradients
from reorder_core.grid import Grid
from reorder_core.interfaces.backbone import Features, Level
from reorder_core.interfaces.context import Context
from reorder_core.interfaces.dataset import Batch
from reorder_core.interfaces.task import TaskResult
from reorder_core.layout import Layout

WIDTH, CLASSES, SIDE, PATCH = 24, 5, 8, 4
GRID = Grid(SIDE // PATCH, SIDE // PATCH)


class _Features(nn.Module):
    """Stands for embedding and backbone: free features of each of the images, so that a task can be learned at all."""

    def __init__(self, batch: Batch, where: Context, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.known = batch.images_BCHW.flatten(1)
        self.tokens_BND = nn.Parameter(torch.randn(len(batch), where.grid.size, where.width, generator=draw))

    def forward(self, images_BCHW: Tensor, order: Any, text_BTD: Tensor | None = None) -> Features:
        """Features of known images; of mixed ones, those of the nearest. A text's tokens see the mean patch."""
        which_B = torch.cdist(images_BCHW.flatten(1), self.known).argmin(1)
        tokens_BND = self.tokens_BND[which_B]
        summary_BD = tokens_BND.mean(1)
        text_BTD = None if text_BTD is None else text_BTD + summary_BD[:, None]
        return Features((Level(tokens_BND, order),), summary_BD, text_BTD=text_BTD)


def class_batch(size: int) -> Batch:
    """A batch of random images of five classes."""
    draw = torch.Generator().manual_seed(9)
    images_BCHW = torch.randn(size, 1, SIDE, SIDE, generator=draw)
    return Batch(images_BCHW, torch.arange(size) % CLASSES, torch.arange(size))


def check_task(
    component: Buildable,
    settings: Given = None,
    *,
    batch: Callable[[int], Batch] = class_batch,
    where: Context | None = None,
    score_is_mean: bool = True,
    learnable: bool = True,
) -> None:
    """Losses, scores and metrics of a task are what its interface says, and it can be learned.

    - loss_B is [B], finite, and its gradient reaches the features and every parameter; the loss of an image is its
      own, unless the task is `batch_coupled`.
    - `prepare` keeps shapes and draws from the generator that it is given only.
    - Metrics give the same over one batch as over its parts, also after `reset`; they have the primary metric.
    - score_B is [B] and finite, and (`score_is_mean`) its mean is the primary metric.
    - `learnable`: after 150 steps on free features the loss is lower and the primary metric better.

    batch: makes a batch of so many images (1 channel, 8×8), for a task whose target is no class; its target may be a
    tensor or a list. where: the context to build in (`context(…)`), where images of that size, five classes or a width
    of 24 do not do.
    """
    where = where or context(GRID, patch=PATCH, width=WIDTH, classes=CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task: Any = build("task", component, settings, where)
    require(isinstance(task, nn.Module), "a task must be a torch.nn.Module")
    require(isinstance(task.higher_is_better, bool), "higher_is_better must be True or False")
    require(isinstance(task.batch_coupled, bool), "batch_coupled must be True or False")
    require(isinstance(getattr(task, "score", ""), str), "score must be the name of what score_B is of")
    named_so = getattr(task, "score", task.primary) == task.primary
    require(score_is_mean or not named_so, "a task whose mean score is not its primary metric must say `score`")
    images = batch(20)
    features = _Features(images, where)
    layout = Layout.fixed(where.grid, torch.arange(where.grid.size))
    task.eval()
    _check_losses(task, features, images, layout)
    _check_prepare(task, features, images, layout)
    _check_metrics(task, features, images, layout, score_is_mean)
    if learnable:
        _check_learning(task, features, images, layout)
    task.after_step(0)


def _step(task: Any, run: Any, batch: Batch, layout: Layout) -> TaskResult:
    result = task.step(run, batch, layout)
    require(isinstance(result, TaskResult), f"step must return a TaskResult, not {type(result).__name__}")
    require(tuple(result.loss_B.shape) == (len(batch),), f"loss_B must be [{len(batch)}]: the loss of each image")
    require(bool(result.loss_B.isfinite().all()), "loss_B must be finite")
    return result  # type: ignore[no-any-return]


def _part(batch: Batch, images: slice) -> Batch:
    """Some images of a batch, whose target may be a tensor or a list."""
    return dataclasses.replace(
        batch, images_BCHW=batch.images_BCHW[images], target=batch.target[images], index_B=batch.index_B[images]
    )


def _check_losses(task: Any, features: _Features, batch: Batch, layout: Layout) -> None:
    result = _step(task, features, batch, layout)
    if not task.batch_coupled:
        alone = torch.cat([_step(task, features, _part(batch, slice(b, b + 1)), layout).loss_B for b in range(4)])
        require(torch.allclose(result.loss_B[:4], alone, atol=1e-5), "the loss of an image must be its own")
    result.loss_B.mean().backward()  # type: ignore[no-untyped-call]
    named = [*task.named_parameters(), *features.named_parameters()]
    require_gradients([(name, values) for name, values in named if values.requires_grad], "a task and its features")
    for _, values in named:
        values.grad = None


def _check_prepare(task: Any, features: _Features, batch: Batch, layout: Layout) -> None:
    task.train()
    with leaves_global_random_state("prepare"):
        one, two = (task.prepare(batch, torch.Generator().manual_seed(4)) for _ in range(2))
    require(one.images_BCHW.shape == batch.images_BCHW.shape, "prepare must keep the shape of the images")
    require(torch.equal(one.images_BCHW, two.images_BCHW), "prepare must draw from the generator that it is given only")
    _step(task, features, one, layout)
    task.eval()


@torch.no_grad()
def _check_metrics(task: Any, features: _Features, batch: Batch, layout: Layout, score_is_mean: bool) -> None:
    result = _step(task, features, batch, layout)
    score_B = task.score_B(result, batch)
    require(tuple(score_B.shape) == (len(batch),), f"score_B must be [{len(batch)}]")
    require(score_B.is_floating_point() and bool(score_B.isfinite().all()), "score_B must be finite float32")
    whole = task.metrics()
    whole.update(result, batch)
    value = dict(whole.compute())
    require(task.primary in value, f"the metrics must have the primary one, '{task.primary}', not only {list(value)}")
    if score_is_mean:
        require(
            abs(float(score_B.mean()) - float(value[task.primary])) < 1e-4,
            f"the mean of score_B must be the metric '{task.primary}': {float(score_B.mean())}, not {value}",
        )
    parts = task.metrics()
    for _ in range(2):
        parts.reset()
        for images in (slice(0, 7), slice(7, None)):
            part = _part(batch, images)
            parts.update(_step(task, features, part, layout), part)
        found = dict(parts.compute())
        require(
            found.keys() == value.keys() and all(abs(found[name] - value[name]) < 1e-4 for name in value),
            f"metrics over parts must be those of the whole, also after reset: {value}, not {found}",
        )


def _check_learning(task: Any, features: _Features, batch: Batch, layout: Layout) -> None:
    before, first = _primary(task, features, batch, layout)
    descent = torch.optim.Adam([*features.parameters(), *task.parameters()], lr=0.05)
    task.train()
    for _ in range(150):
        descent.zero_grad()
        _step(task, features, batch, layout).loss_B.mean().backward()  # type: ignore[no-untyped-call]
        descent.step()
    task.eval()
    after, last = _primary(task, features, batch, layout)
    require(last < first, f"learning must lower the loss: from {first:.3f} it came to {last:.3f}")
    sign = 1 if task.higher_is_better else -1
    require(sign * (after - before) > 0, f"learning must improve '{task.primary}': from {before:.3f} to {after:.3f}")


@torch.no_grad()
def _primary(task: Any, features: _Features, batch: Batch, layout: Layout) -> tuple[float, float]:
    """(primary metric, mean loss)."""
    result = _step(task, features, batch, layout)
    metrics = task.metrics()
    metrics.update(result, batch)
    return float(metrics.compute()[task.primary]), float(result.loss_B.mean())
