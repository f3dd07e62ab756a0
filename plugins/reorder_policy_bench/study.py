"""All that the command does: who takes part, every run, the results in order, and where they go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from reorder_core import ReorderError, RunError
from reorder_core.catalogue import Catalogue
from reorder_policy_bench.admission import admitted
from reorder_policy_bench.contenders import Contender, LeftOut, installed, parse, swept
from reorder_policy_bench.memory import Peak, peak_memory
from reorder_policy_bench.report import print_rows
from reorder_policy_bench.summary import LEVELS, end, reached
from reorder_policy_bench.trial import Conditions, Trial, run_trial

STOPPED = 130


@dataclass(frozen=True)
class Row:
    """One contender under one set of conditions. reason: why it has no trials, or why it has fewer than asked for."""

    contender: Contender
    conditions: Conditions
    trials: tuple[Trial, ...] = ()
    reason: str = ""
    peak_mebibytes: float | None = None

    def as_json(self, curves: bool) -> dict[str, Any]:
        """Plain values; with `curves` also what every look of every seed saw."""
        said: dict[str, Any] = {
            "policy": self.contender.name,
            "label": self.contender.label,
            "settings": _plain(self.contender.ref.settings),
            **asdict(self.conditions),
            "state": "failed" if self.reason else "ok",
            "reason": self.reason,
            "seeds": [trial.seed for trial in self.trials],
        }
        if not self.trials:
            return said
        first = self.trials[0]
        said |= {
            "orders": first.orders,
            "samples_a_step": first.samples_a_step,
            "samples": first.samples_a_step * self.conditions.steps,
            "reached": [reached(self.trials, level).as_json() for level in LEVELS],
            "end": end(self.trials).as_json(),
            "seconds": sum(trial.looks[-1].seconds for trial in self.trials) / len(self.trials),
            "peak_mebibytes": self.peak_mebibytes,
        }
        if curves:
            said["curves"] = [
                [[look.step * trial.samples_a_step, look.seconds, look.reward] for look in trial.looks]
                for trial in self.trials
            ]
        return said


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
            Conditions(problem, size, noise, self.steps or usual_steps(size), self.batch, self.interaction)
            for size in self.sizes
            for problem in self.problems
            for noise in self.noises
        ]


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
    left: list[LeftOut] = []
    if policies:
        contenders = [parse(text, catalogue) for text in policies]
    else:
        contenders, left = installed(catalogue)
    plan = Plan(swept(contenders, catalogue, orders, rates), **asked)
    if policies:
        _require_admitted(plan)
    console = Console(stderr=as_json)
    rows: list[Row] = []
    code = 0
    try:
        with _progress(console) as progress:
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
            console.print("stopped: these are the runs that were finished", style="yellow")
    return code


def _require_admitted(plan: Plan) -> None:
    """A policy that was asked for by name must fit one set of conditions at least, before anything runs."""
    for contender in plan.contenders:
        refused: ReorderError | None = None
        for conditions in plan.conditions():
            try:
                admitted(contender, conditions, plan.budget)
                break
            except ReorderError as error:
                refused = error
        else:
            if refused is not None:
                raise refused


def _run(plan: Plan, rows: list[Row], progress: Progress) -> None:
    """Fill `rows`, one after the other; those that are done stand in it when Ctrl-C ends this."""
    everything = plan.conditions()
    bar = progress.add_task("", total=sum(each.steps for each in everything) * plan.seeds * len(plan.contenders))
    for conditions in everything:
        ran: list[tuple[Contender, Conditions]] = []
        for contender in plan.contenders:
            reason = ""
            here = conditions
            try:
                contender, here = admitted(contender, conditions, plan.budget)
            except Exception as error:
                reason = _one_line(error)
            if (contender, here) not in ran:  # a number of orders that two of them dropped makes them the same
                ran.append((contender, here))
                _seeds(contender, here, plan.seeds, reason, rows, progress, bar)
            progress.advance(bar, 0 if not reason else conditions.steps * plan.seeds)


def _seeds(
    contender: Contender,
    conditions: Conditions,
    seeds: int,
    reason: str,
    rows: list[Row],
    progress: Progress,
    bar: Any,
) -> None:
    """Run the seeds of one row and append it, with what there is of it where it breaks or is stopped."""
    trials: list[Trial] = []
    mark = f"{conditions.problem}, {conditions.size} patches, noise {conditions.noise:g}: {contender.label}"
    peak = Peak()
    try:
        with peak_memory() as peak:
            for seed in range(0 if reason else seeds):
                progress.update(bar, description=f"{mark}, seed {seed}")
                trials.append(run_trial(contender.ref, conditions, seed, lambda: progress.advance(bar)))
    except KeyboardInterrupt:
        reason = f"stopped after {len(trials)} of {seeds} seeds"
        raise
    except Exception as error:  # a policy of anybody's that breaks is a row of the table, not the end of it
        reason = _one_line(error)
    finally:
        if trials or (reason and not reason.startswith("stopped after 0")):
            rows.append(Row(contender, conditions, tuple(trials), reason, peak.mebibytes))


def _one_line(error: BaseException) -> str:
    kind = "" if isinstance(error, ReorderError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def _document(rows: Sequence[Row], left: Sequence[LeftOut], curves: bool) -> dict[str, Any]:
    return {"rows": [row.as_json(curves) for row in rows], "left_out": [asdict(each) for each in left]}


def _write(rows: Sequence[Row], left: Sequence[LeftOut], folder: Path) -> None:
    from reorder_policy_bench.picture import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / "policies.json.part"
        aside.write_text(json.dumps(_document(rows, left, curves=True)), encoding="utf-8")
        aside.replace(folder / "policies.json")
        draw(rows, folder / "policies.png")
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error


def _plain(settings: Any) -> Any:
    return json.loads(json.dumps(dict(settings), default=str))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
