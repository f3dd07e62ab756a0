"""The training loop: what happens when, from the first step to the last validation.

Read `train` from top to bottom; `step.py` holds one optimiser step, `trainer.py` the state that a checkpoint saves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reorder_core import permutation
from reorder_core.errors import RunError
from reorder_core.interfaces.dataset import Batch
from reorder_core.layout import Layout
from reorder_core.training.checkpoint import Checkpoints
from reorder_core.training.evaluate import Validation, evaluate
from reorder_core.training.journal import Journal, numbers
from reorder_core.training.loader import own_validation_batches, training_batches, worker_count
from reorder_core.training.progress import Progress, StepReport
from reorder_core.training.step import StepResult, train_step
from reorder_core.training.stopping import Interrupted, StopRequest
from reorder_core.training.trainer import Trainer

_SHOWN_ALREADY = ("reward", "temperature")  # a policy may report them too


@dataclass
class Surroundings:
    """Where a run writes, whom it tells, and who may stop it.

    journal and checkpoints write on the first process only (checkpoints is None on the others).
    """

    journal: Journal
    progress: Progress
    checkpoints: Checkpoints | None
    stop: StopRequest


def train(t: Trainer, around: Surroundings) -> Validation:
    """Train from where `t` stands to the end; returns the last validation.

    Raises `Interrupted` after it was asked to stop and has saved, `RunError` where it cannot go on.
    """
    if t.step == 0:
        _note_order(t, around)
    batches = _batches(t)
    pace = Pace(t)
    last = None
    while True:
        if t.validation_due():
            last = validate(t, around)
            pace.skip()
        if t.step == t.table.total:
            break
        batch, index_B = next(batches)
        phase, epoch = t.phase, t.epoch
        log_due = (t.step + 1) % t.parts.recipe.training.log_every == 0 or t.step in (0, t.table.total - 1)
        try:
            result = train_step(t, batch, index_B, around.stop.requested, with_accuracy=log_due)
        except RunError as error:
            raise _with_last_checkpoint(error, around) from error
        t.step += 1
        pace.tick(len(index_B))
        report = _report(t, result, phase, epoch, pace)
        around.progress.step(report)
        if log_due:
            _note_step(t, around, report, result, pace)
        if t.save_due() or result.stop:
            save(t, around, pace)
        if result.stop:
            raise Interrupted(f"stopped at step {t.step} of {t.table.total}, which is saved: go on with --resume")
    pace.flush()
    assert last is not None  # the end of the run is always validated
    return last


def validate(t: Trainer, around: Surroundings) -> Validation:
    """Validate in the best order so far, with the averaged weights where there are any, and write it down."""
    found = evaluate_split(t)
    t.validated = t.step // t.table.steps_per_epoch
    if not math.isfinite(found.metrics["loss"]):
        error = RunError(f"the validation loss is not finite after epoch {t.validated}: lower training.optimizer.lr")
        raise _with_last_checkpoint(error, around)
    around.journal.write("validation", step=t.step, epoch=t.validated, **found.metrics)
    _note_order(t, around)
    around.progress.validation(t.validated, found.metrics)
    return found


def evaluate_split(t: Trainer, stop_after: int | None = None) -> Validation:
    """A pass over the validation split (or over its first `stop_after` batches)."""
    training, shares, dataset = t.parts.recipe.training, t.plan.shares, t.parts.dataset
    images = len(dataset.validation)
    batches = own_validation_batches(dataset, training, shares, pin=t.accelerator.device.type == "cuda")
    learner: Any = t.learner if t.ema is None else t.ema.module

    def order_of(batch: Batch) -> Layout:
        return t.best_layout(batch.images_BCHW, learner)

    return evaluate(learner, batches, order_of, t.accelerator, shares, images, stop_after)


def save(t: Trainer, around: Surroundings, pace: Pace) -> None:
    """Save a checkpoint, once it is sure that the weights are finite."""
    pace.flush()
    if not all(bool(parameter.isfinite().all()) for parameter in t.learner.parameters()):
        error = RunError(f"the weights are not finite after step {t.step}: lower training.optimizer.lr")
        raise _with_last_checkpoint(error, around)
    snapshot = t.snapshot(around.journal.flushed_length())  # every process: random states are collected
    if around.checkpoints is not None:
        around.checkpoints.save(t.step, snapshot)
    pace.skip()


def _batches(t: Trainer) -> Iterator[tuple[Batch, Tensor]]:
    training, dataset = t.parts.recipe.training, t.parts.dataset
    workers = worker_count(training.workers, dataset.in_memory, t.plan.shares.processes)
    pin = t.accelerator.device.type == "cuda"
    return training_batches(dataset, t.plan, t.step, t.table.total, workers, pin)


class Pace:
    """Counts seconds of training and images/s; validation and saving are not counted as training."""

    def __init__(self, t: Trainer) -> None:
        self._t = t
        self._wall = self._mark = time.perf_counter()
        self._images = 0
        self._seconds = 0.0
        self.images_per_second: float | None = None

    def tick(self, images: int) -> None:
        """A step with that many images is done."""
        now = time.perf_counter()
        self._images += images
        self._seconds += now - self._mark
        self._t.train_seconds += now - self._mark
        self._mark = now
        if self._seconds > 1.0 or self.images_per_second is None:  # a figure over about a second
            self.images_per_second = self._images / max(self._seconds, 1e-9)
            self._images, self._seconds = 0, 0.0

    def skip(self) -> None:
        """What was done since the last step was no training."""
        self._mark = time.perf_counter()

    def flush(self) -> None:
        """Bring the run's wall time up to date."""
        now = time.perf_counter()
        self._t.seconds += now - self._wall
        self._wall = now


def _report(t: Trainer, result: StepResult, phase: str, epoch: int, pace: Pace) -> StepReport:
    if result.policy_metrics:  # computed in logged steps; shown until the next
        t.policy_shown = {name: value for name, value in result.policy_metrics.items() if name not in _SHOWN_ALREADY}
    return StepReport(
        step=t.step,
        epoch=epoch,
        phase=phase,
        loss=result.loss,
        accuracy=result.accuracy,
        temperature=result.temperature,
        reward=-result.loss if result.draw is not None else None,
        lr=result.lr,
        images_per_second=pace.images_per_second,
        policy_metrics=t.policy_shown if phase == "learn" else {},
    )


def _note_step(t: Trainer, around: Surroundings, report: StepReport, result: StepResult, pace: Pace) -> None:
    """Rows of `metrics.jsonl`; images/s go to `timing.jsonl`, so that a resumed run's metrics are bit-identical."""
    around.journal.write(
        "step",
        step=report.step,
        epoch=report.epoch,
        phase=report.phase,
        loss=report.loss,
        accuracy=report.accuracy,
        lr=report.lr,
        temperature=report.temperature,
        reward=report.reward,
        **{f"policy/{name}": value for name, value in numbers(result.policy_metrics).items()},
    )
    pace_now = pace.images_per_second
    around.journal.time(step=report.step, images_per_second=pace_now, train_seconds=t.train_seconds)
    if result.draw is not None:
        slot_N = result.draw.perm_GN.argsort(dim=1).to(torch.float32).mean(dim=0)
        slots = [round(slot, 3) for slot in slot_N.tolist()]
        around.journal.write("policy_slots", step=report.step, epoch=report.epoch, slots=slots)


def _note_order(t: Trainer, around: Surroundings) -> None:
    best_N = t.best_order().numpy()
    around.journal.write(
        "order",
        step=t.step,
        epoch=t.step // t.table.steps_per_epoch,
        permutation=best_N.tolist(),
        kendall_tau_to_prior=float(permutation.kendall_tau(best_N, t.parts.order_N)),
    )


def _with_last_checkpoint(error: RunError, around: Surroundings) -> RunError:
    """The same sentence with the checkpoint that still stands."""
    steps = around.checkpoints.steps() if around.checkpoints is not None else []
    if not steps or around.checkpoints is None:
        return error
    return RunError(f"{error}; the last good checkpoint is {around.checkpoints.path(steps[-1])}")
