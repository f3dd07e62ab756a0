"""How the progress of a run looks: numbers in, a panel or a line out. Nothing here prints."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reorder_core.training.report import show_metric, show_seconds

if TYPE_CHECKING:
    from reorder_core.training.progress import StepReport

_PHASES = {"warm_up": "warm-up", "learn": "learning", "frozen": "order frozen", "fixed": "fixed order"}
_COLOURS = {"warm_up": "yellow", "learn": "magenta", "frozen": "cyan", "fixed": "blue"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_PACE_REPORTS = 40  # steps over which the pace is taken: short enough to follow a change of phase


@dataclass
class Tally:
    """The numbers of the run that is going on."""

    runs: int = 1
    clock: Callable[[], float] = time.monotonic
    run: int = 0
    title: str = ""
    total_steps: int = 0
    steps_per_epoch: int = 1
    first_step: int = 0
    started_at: float = 0.0
    report: StepReport | None = None
    validated: tuple[int, Mapping[str, float]] | None = None
    losses: list[float] = field(default_factory=list)
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_PACE_REPORTS))

    def start(self, total_steps: int, steps_per_epoch: int, title: str, first_step: int) -> None:
        self.run, self.title = self.run + 1, title
        self.total_steps, self.steps_per_epoch, self.first_step = total_steps, max(1, steps_per_epoch), first_step
        self.report, self.validated = None, None
        self.losses.clear()
        self._marks.clear()
        self.started_at = self.clock()
        self._marks.append((self.started_at, first_step))

    def step(self, report: StepReport) -> None:
        self.report = report
        self.losses.append(report.loss)
        self._marks.append((self.clock(), report.step))

    def validation(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.validated = (epoch, dict(metrics))

    def finish(self) -> str:
        """The line that stays when a run is done."""
        result = f": {plain_metrics(self.validated[1])}" if self.validated else ""
        return f"done: {self.heading}{result}, in {show_seconds(self.elapsed)}"

    @property
    def heading(self) -> str:
        return f"run {max(1, self.run)} of {self.runs}: {self.title}" if self.runs > 1 else self.title

    @property
    def done(self) -> int:
        return self.first_step if self.report is None else self.report.step

    @property
    def epochs(self) -> int:
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def elapsed(self) -> float:
        return self.clock() - self.started_at

    @property
    def seconds_left(self) -> float | None:
        """Of this run at its present pace, validation included; None before there is a pace."""
        (then, first), (now, last) = self._marks[0], self._marks[-1]
        if last <= first or now <= then:
            return None
        return (self.total_steps - last) * (now - then) / (last - first)

    @property
    def seconds_left_in_all(self) -> float | None:
        """Of this run and those after it, which have as many steps and no policy: an upper guess."""
        left, progress = self.seconds_left, self.done - self.first_step
        if left is None or progress == 0:
            return None
        return left + (self.runs - max(1, self.run)) * self.total_steps * self.elapsed / progress


class Dashboard:
    """The live panel; rich asks it for its look several times a second."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tally = self._tally
        if not tally.run:
            yield Text("getting ready …", style="dim")
            return
        parts = [_bar(tally), Text(""), *_numbers(tally, options.max_width - 4)]
        colour = _COLOURS.get(tally.report.phase, "white") if tally.report else "white"
        yield Panel(Group(*parts), title=Text(tally.heading, style="bold"), title_align="left", border_style=colour)


def _bar(tally: Tally) -> Table:
    row = Table.grid(padding=(0, 1), expand=True)
    for ratio in (None, 1, None, None):
        row.add_column(ratio=ratio, no_wrap=True)
    report = tally.report
    phase = "starting" if report is None else _PHASES.get(report.phase, report.phase)
    bar = ProgressBar(total=max(1, tally.total_steps), completed=tally.done, complete_style="green")
    share = f"{100 * tally.done / max(1, tally.total_steps):3.0f} %"
    row.add_row(Text(phase, style="bold"), bar, share, Text(_times(tally), style="dim"))
    return row


def _times(tally: Tally) -> str:
    left, in_all = tally.seconds_left, tally.seconds_left_in_all
    if left is None:
        return show_seconds(tally.elapsed)
    text = f"{show_seconds(tally.elapsed)} gone, {show_seconds(left)} left"
    return f"{text} ({show_seconds(in_all)} in all)" if in_all is not None and tally.runs > tally.run else text


def _numbers(tally: Tally, width: int) -> list[Table | Text]:
    report = tally.report
    if report is None:
        return [Text(f"{tally.total_steps:,} steps", style="dim")]
    cells = [
        ("epoch", f"{report.epoch + 1}/{tally.epochs}"),
        ("step", f"{report.step:,}/{tally.total_steps:,}"),
        *((key, value) for key, value in _shown(report) if key != "loss"),
    ]
    columns = max(1, min(len(cells), width // 22))
    table = Table.grid(padding=(0, 2))
    for start in range(0, len(cells), columns):
        table.add_row(*(Text.assemble((f"{key} ", "dim"), value) for key, value in cells[start : start + columns]))
    loss = Text.assemble(("loss ", "dim"), f"{report.loss:.4f}  ", (sparkline(tally.losses, width - 16), "green"))
    lines: list[Table | Text] = [table, loss]
    if tally.validated:
        epoch, metrics = tally.validated
        lines.append(Text.assemble((f"validation after epoch {epoch} ", "dim"), (plain_metrics(metrics), "bold")))
    return lines


def _shown(report: StepReport) -> list[tuple[str, str]]:
    """Name and text of every number that the report has."""
    optional = (
        ("accuracy", report.accuracy, "{:.1%}"),
        ("temperature", report.temperature, "{:.3f}"),
        ("reward", report.reward, "{:+.4f}"),
        ("lr", report.lr, "{:.2e}"),
        ("images/s", report.images_per_second, "{:,.0f}"),
    )
    shown = [("loss", f"{report.loss:.4f}")]
    shown += [(name, form.format(value)) for name, value, form in optional if value is not None]
    return shown + [(name, f"{value:.3g}") for name, value in report.policy_metrics.items()]


def plain_line(tally: Tally, report: StepReport) -> str:
    """`  step 128/1536 epoch 1/12 warm-up loss 1.2345 … 2:10 left`."""
    phase = _PHASES.get(report.phase, report.phase)
    numbers = "  ".join(f"{key} {value}" for key, value in _shown(report))
    left = tally.seconds_left
    rest = "" if left is None or report.step >= tally.total_steps else f"  {show_seconds(left)} left"
    place = f"step {report.step}/{tally.total_steps}  epoch {report.epoch + 1}/{tally.epochs}"
    return f"  {place}  {phase}  {numbers}{rest}"


def plain_metrics(metrics: Mapping[str, float]) -> str:
    """`top1 67.3 %  top5 96.0 %  loss 0.9876`."""
    return "  ".join(f"{name} {show_metric(name, value)}" for name, value in metrics.items())


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a row of blocks, each the mean of its share of them, lowest to highest."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
