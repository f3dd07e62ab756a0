"""When a curriculum is where: pure functions of the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reorder_core import Clock
from reorder_core.schedule import shape

if TYPE_CHECKING:
    from reorder_curriculum.settings import CurriculumSettings


def learner_clock(settings: CurriculumSettings, clock: Clock) -> Clock:
    """The clock that the learner reads: its phase is the first `learner_share`, of at least one step."""
    if settings.learner is None:
        return replace(clock, learn_stop=clock.learn_start)
    steps = max(1, round(settings.learner_share * (clock.learn_stop - clock.learn_start)))
    return replace(clock, learn_stop=min(clock.learn_stop, clock.learn_start + steps))


def weight_of_end(settings: CurriculumSettings, clock: Clock) -> float:
    """How much of the way to the end is gone, 0 at the start of the move and 1 when the phase is over.

    It stays as it is for `every` steps (or epochs) at a time.
    """
    if clock.step >= clock.learn_stop:
        return 1.0
    begin = learner_clock(settings, clock).learn_stop
    stay = settings.every * (clock.steps_per_epoch if settings.unit == "epochs" else 1)
    gone = max(0, clock.step - begin) // stay * stay / (clock.learn_stop - begin)
    if gone <= settings.hold:
        return 0.0
    return 1.0 - shape(settings.schedule)((gone - settings.hold) / (1.0 - settings.hold))
