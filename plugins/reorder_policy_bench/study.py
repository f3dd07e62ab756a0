"""All that the command does: who takes part, every run, the results in order, and where they go."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from reorder_core import ReorderError, output_folder, write_json
from reorder_core.catalogue import Catalogue
from reorder_policy_bench.admission import admitted
from reorder_policy_bench.contenders import Contender, LeftOut, swept, taking_part
from reorder_policy_bench.memory import Peak, peak_memory
from reorder_policy_bench.report import print_rows
from reorder_policy_bench.row import Row
from reorder_policy_bench.trial import Conditions, Trial, run_trial

STOPPED = 130


@dataclass(frozen=True)
class Plan:
    """What is to be run. steps: None takes the usual schedule of the size; budget: samples of a run, in place of it."""

    contenders: Sequence[Contender]
    problems: Sequence[str]
    sizes: Sequence[int]
    noises: Sequence[float]
    seeds: int
    steps: int | None
    budget: int | None
    batch: int
    interaction: float

    def conditions(self) -> list[Conditions]:
        return [
            Conditions(problem, size, noise, self._steps(size), self.batch, self.interaction)
            for size in self.sizes
            for problem in self.problems
            for noise in self.noises
        ]

    def _steps(self, size: int) -> int:
        """With a budget: of a policy that reads each image in one order."""
        return max(1, self.budget // self.batch) if self.budget else self.steps or usual_steps(size)


def usual_steps(size: int) -> int:
    """400 for up to 16 patches, 1,500 for up to 64, 2,500 beyond."""
    return 400 if size <= 16 else 1500 if size <= 64 else 2500


def run_study(
    policies: Sequence[str],
    orders: Sequence[int],
    rates: Sequence[float],
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> int:
    """Run everything and say it; returns the exit code (130 where it was stopped: what is finished is said)."""
    catalogue = Catalogue.load()
    contenders, left = taking_part(policies, catalogue)
    plan = Plan(swept(contenders, catalogue, orders, rates), **asked)
    _require_admitted(plan)
    console = Console(stderr=as_json)
    rows: list[Row] = []
    code = 0
    with _progress(console) as progress:
        try:
            _run(plan, rows, progress)
        except KeyboardInterrupt:
            code = STOPPED
    if out is not None and rows:
        _write(rows, left, out)
    if as_json:
        print(json.dumps(_document(rows, left, curves=False), indent=1))
    else:
        print_rows(rows, left, out, console)
    if code:
        console.print("stopped: this is what was finished", style="yellow")
    return code


def _require_admitted(plan: Plan) -> None:
    """A policy that was asked for by name must fit one set of conditions at least, before anything runs."""
    for contender in plan.contenders:
        if contender.named:
            refused = [_refusal(contender, conditions, plan.budget) for conditions in plan.conditions()]
            if all(refused) and refused[0] is not None:
                raise refused[0]


def _refusal(contender: Contender, conditions: Conditions, budget: int | None) -> ReorderError | None:
    try:
        admitted(contender, conditions, budget)
    except ReorderError as error:
        return error
    return None


def _run(plan: Plan, rows: list[Row], progress: Progress) -> None:
    """Fill `rows`, one after the other; those that are done stand in it when Ctrl-C ends this."""
    everything = plan.conditions()
    bar = progress.add_task("", total=sum(each.steps for each in everything) * plan.seeds * len(plan.contenders))
    planned, warm = 0, set[str]()
    for conditions in everything:
        ran: list[tuple[Contender, Conditions]] = []
        for contender in plan.contenders:
            try:
                entered = admitted(contender, conditions, plan.budget)
            except Exception as error:  # a policy of anybody's that breaks is a row of the table, not the end of it
                rows.append(Row(contender, conditions, reason=_one_line(error)))
            else:
                if entered not in ran:  # where a number of orders fell away, two of them are the same
                    ran.append(entered)
                    _warm_up(entered[0], warm)
                    _seeds(*entered, plan.seeds, rows, partial(_say, progress, bar), partial(progress.advance, bar))
            planned += conditions.steps * plan.seeds
            progress.update(bar, completed=planned)


def _say(progress: Progress, bar: Any, text: str) -> None:
    progress.update(bar, description=text)


def _warm_up(contender: Contender, warm: set[str]) -> None:
    """Two small steps of each kind of policy, unmeasured: the first ones of a process import and compile."""
    if contender.name not in warm:
        warm.add(contender.name)
        with suppress(Exception):  # what is wrong with it is said by the run itself
            run_trial(contender.ref, Conditions("footrule", 64, 1.0, 2), 0)


def _seeds(
    contender: Contender,
    conditions: Conditions,
    seeds: int,
    rows: list[Row],
    say: Callable[[str], None],
    tick: Callable[[], None],
) -> None:
    """Run the seeds of one row and append it, with what there is of it where it breaks or is stopped."""
    trials: list[Trial] = []
    mark = f"{conditions.problem}, {conditions.size} patches, noise {conditions.noise:g}: {contender.label}"
    reason, peak = "", Peak()
    try:
        with peak_memory() as peak:
            for seed in range(seeds):
                say(f"{mark}, seed {seed}")
                trials.append(run_trial(contender.ref, conditions, seed, tick))
    except KeyboardInterrupt:
        if trials:
            rows.append(Row(contender, conditions, tuple(trials), f"stopped after {len(trials)} of {seeds} seeds"))
        raise
    except Exception as error:  # as above
        reason = _one_line(error)
    rows.append(Row(contender, conditions, tuple(trials), reason, peak.mebibytes))


def _one_line(error: BaseException) -> str:
    kind = "" if isinstance(error, ReorderError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def _document(rows: Sequence[Row], left: Sequence[LeftOut], curves: bool) -> dict[str, Any]:
    return {"rows": [row.as_json(curves) for row in rows], "left_out": [asdict(each) for each in left]}


def _write(rows: Sequence[Row], left: Sequence[LeftOut], folder: Path) -> None:
    from reorder_policy_bench.picture import draw

    with output_folder(folder):
        write_json(folder / "policies.json", _document(rows, left, curves=True), indent=None)
        draw(rows, folder / "policies.png")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
