"""What a person sees while a run trains: a live display in a terminal, plain lines anywhere else.

    with Progress(runs=4) as progress:
        progress.start(total_steps=1536, steps_per_epoch=128, title="learned order")
        progress.step(StepReport(...))        # after every step, or every few
        progress.validation(1, {"top1": 0.67})
        progress.finish()

The plain form is taken where the output is no terminal, with `REORDER_PLAIN=1` and with `TERM=dumb`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live

from reorder_core.training.display import Dashboard, Tally, plain_line, plain_metrics

_REFRESH_HZ = 8


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimiser step: `step` steps are done; the last of them in `epoch` (counted from 0, shown from 1).

    phase: warm_up | learn | frozen | fixed. accuracy: share of the batch, 0 to 1. reward: of the drawn orders.
    policy_metrics: what the policy itself reports, shown as it comes.
    """

    step: int
    epoch: int
    phase: str
    loss: float
    accuracy: float | None = None
    temperature: float | None = None
    reward: float | None = None
    lr: float | None = None
    images_per_second: float | None = None
    policy_metrics: Mapping[str, float] = field(default_factory=dict)


class Progress:
    """Shows the runs of one command, one after the other.

    runs: how many there are (the main run and its controls). enabled: False on every process but the first, which
    then prints nothing at all. every: seconds between plain lines. clock: seconds, for tests.
    """

    def __init__(
        self,
        runs: int = 1,
        *,
        enabled: bool = True,
        console: Console | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.enabled = enabled
        self.console = console or Console(stderr=False)
        self.live = enabled and wants_live(self.console)
        self._every, self._clock = every, clock
        self._tally = Tally(runs=runs, clock=clock)
        self._printed_at = float("-inf")
        self._printed_phase = ""
        self._display: Live | None = None
        self._streams: Any = None
        self._log = _LogLines(self.message)

    def __enter__(self) -> Progress:
        if self.live:
            self._display = Live(
                Dashboard(self._tally),
                console=self.console,
                refresh_per_second=_REFRESH_HZ,
                transient=True,
                vertical_overflow="crop",
            )
            self._display.start(refresh=False)
            self._streams = _logging_through_display()
            self._streams.__enter__()
        if self.enabled:
            self._log.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the display off the screen and shows the cursor again, whatever ended the run (Ctrl-C too)."""
        self._log.detach()
        if self._streams is not None:
            self._streams.__exit__(None, None, None)
            self._streams = None
        if self._display is not None:
            self._display.stop()
            self._display = None

    def start(self, total_steps: int, steps_per_epoch: int, title: str, first_step: int = 0) -> None:
        """A run begins. first_step: where a resumed run goes on, so that its pace is not flattered."""
        self._tally.start(total_steps, steps_per_epoch, title, first_step)
        self._printed_at, self._printed_phase = float("-inf"), ""
        if not self.live:
            self.message(f"{self._tally.heading}: {total_steps:,} steps")

    def step(self, report: StepReport) -> None:
        """A step is done. Cheap: it only notes the numbers, and prints a plain line when one is due."""
        if not self.enabled:
            return
        self._tally.step(report)
        if self.live:
            return
        now = self._clock()
        due = now - self._printed_at >= self._every or report.phase != self._printed_phase
        if due or report.step == self._tally.total_steps:
            self._printed_at, self._printed_phase = now, report.phase
            self._print(plain_line(self._tally, report))

    def validation(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """A validation is done, after `epoch` epochs."""
        self._tally.validation(epoch, metrics)
        if self.enabled and not self.live:
            self._print(f"  validation after epoch {epoch}: {plain_metrics(metrics)}")

    def message(self, text: str) -> None:
        """One line that stays, above the display."""
        if self.enabled:
            self._print(text)

    def finish(self) -> None:
        """The run that was started last is done; its last validation stays on the screen."""
        self.message(self._tally.finish())

    def _print(self, text: str) -> None:
        self.console.out(text, highlight=False)
        if not self.live:
            self.console.file.flush()


class _LogLines(logging.Handler):
    """What our own modules and rooms log (which scan runs, say), and everybody's warnings, as lines that stay."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say
        self._level_before: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("reorder") or record.levelno >= logging.WARNING:
            severity = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            self._say(f"{severity}{record.getMessage()}")

    def attach(self) -> None:
        root = logging.getLogger()
        self._level_before = root.level
        root.setLevel(min(root.level, logging.INFO))
        root.addHandler(self)

    def detach(self) -> None:
        if self._level_before is not None:
            root = logging.getLogger()
            root.removeHandler(self)
            root.setLevel(self._level_before)
            self._level_before = None


def wants_live(console: Console) -> bool:
    """Whether a display that redraws itself makes sense here."""
    plain = os.environ.get("REORDER_PLAIN", "") not in ("", "0")
    return console.is_terminal and not console.is_dumb_terminal and not plain and console.encoding.startswith("utf")


@contextmanager
def _logging_through_display() -> Iterator[None]:
    """Log lines go above the display: handlers hold the stream they were made with, so they are handed the new one."""
    old = (sys.__stdout__, sys.__stderr__)
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    moved = []
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream in old:
            new = sys.stdout if handler.stream is sys.__stdout__ else sys.stderr
            moved.append((handler, handler.setStream(new)))
    try:
        yield
    finally:
        for handler, stream in moved:
            if stream is not None:
                handler.setStream(stream)
