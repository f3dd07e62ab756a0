"""Where a run stands at a step: warm-up, learning, frozen. Pure: the same step gives the same answer after a resume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from reorder_core.errors import UsageError
from reorder_core.interfaces.policy import Clock
from reorder_core.schedule import lr_factor

if TYPE_CHECKING:
    from reorder_core.recipe import TrainingSection

Phase = Literal["warm_up", "learn", "frozen", "fixed"]


@dataclass(frozen=True, slots=True)
class Timetable:
    """All in optimiser steps. The policy learns in [learn_start, learn_stop); without one every step is `fixed`.

    hold_until: the learning rate stays at its peak until this step.
    """

    steps_per_epoch: int
    total: int
    learn_start: int = 0
    learn_stop: int = 0
    has_policy: bool = False
    hold_until: int = 0

    def clock(self, step: int) -> Clock:
        """The clock that policies read, when `step` steps are done."""
        return Clock(step, self.steps_per_epoch, self.learn_start, self.learn_stop, self.total)

    def phase(self, step: int) -> Phase:
        """The phase of the step that comes when `step` steps are done."""
        if not self.has_policy:
            return "fixed"
        if step < self.learn_start:
            return "warm_up"
        return "learn" if step < self.learn_stop else "frozen"

    def epoch(self, step: int) -> int:
        """The epoch, counted from 0, of the step that comes when `step` steps are done."""
        return step // self.steps_per_epoch


def timetable(training: TrainingSection, steps_per_epoch: int, has_policy: bool, holds: bool = False) -> Timetable:
    """The recipe's epochs and phases in steps. Raises `UsageError` where the phases do not fit the run.

    holds: a control of a run with a policy: its learning rate is held as long as that run's, or it would be another run
    in more than its order.
    """
    total = training.epochs * steps_per_epoch
    if not has_policy and not holds:
        return Timetable(steps_per_epoch, total)
    phases = training.phases
    scale = steps_per_epoch if phases.unit == "epochs" else 1
    learn_start = round(phases.warm_up * scale)
    learn_stop = round((phases.warm_up + phases.learn) * scale)
    if learn_stop > total:
        raise UsageError(
            f"training.phases: warm_up and learn take {learn_stop} steps, but the run has {total} "
            f"({training.epochs} epochs of {steps_per_epoch}): shorten them, or raise training.epochs"
        )
    hold_until = learn_stop if training.schedule.hold == "policy" else 0
    if not has_policy:
        return Timetable(steps_per_epoch, total, hold_until=hold_until)
    return Timetable(steps_per_epoch, total, learn_start, learn_stop, has_policy=True, hold_until=hold_until)


def learning_rate(training: Any, table: Timetable, step: int) -> float:
    """The learning rate of the step that comes when `step` steps are done.

    With `hold: policy` it is flat from the warm-up until the policy is frozen, as in the paper.
    """
    schedule = training.schedule
    factor = lr_factor(
        step,
        table.total,
        warm_up=schedule.warm_up * table.steps_per_epoch,
        hold_until=table.hold_until,
        final=schedule.final,
        shape=schedule.shape,
    )
    return float(training.optimizer.lr * factor)
