"""How soon runs reach a fixed validation accuracy: epochs and seconds of training, over seeds.

    python benchmarks/study/time_to_accuracy.py runs/random_to_row/*/ --target 0.5 [--against row_major]

Each folder is a run with its controls; runs of one name and different seeds are one row, and so are the controls of
one name. The moment is where a straight line between two validations crosses the target (epoch 0 counts as score 0);
the seconds are those of training alone, read off timing.jsonl at that step. Mean and Student's t 95 % interval over
the seeds that got there; how many did stands beside it, and where some did not, the mean flatters that row.
The difference to `--against` is paired by seed, over the seeds in which both got there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy import stats


@dataclass(frozen=True)
class Arrival:
    """When a run got to the target: None where it never did. best: its highest validation score."""

    epochs: float | None
    seconds: float | None
    best: float


Rows = dict[str, dict[int, Arrival]]  # run or control -> seed -> when


def arrival(folder: Path, metric: str, target: float) -> Arrival:
    """The first crossing of `target` in a run's folder. Raises `SystemExit` where the metric is not validated."""
    step_V, epoch_V, score_V = [0.0], [0.0], [0.0]
    for row in _rows(folder / "metrics.jsonl"):
        if row["event"] == "validation":
            if metric not in row:
                known = ", ".join(key for key in row if key not in ("event", "step", "epoch"))
                raise SystemExit(f"{folder} validates no '{metric}': name one of {known} with --metric")
            step_V.append(row["step"])
            epoch_V.append(row["epoch"])
            score_V.append(row[metric])
    best = max(score_V)
    reached = [number for number, score in enumerate(score_V) if score >= target]
    if not reached:
        return Arrival(None, None, best)
    after = reached[0]
    before = after - 1
    part = (target - score_V[before]) / (score_V[after] - score_V[before])
    step = step_V[before] + part * (step_V[after] - step_V[before])
    return Arrival(
        epoch_V[before] + part * (epoch_V[after] - epoch_V[before]), seconds_at(folder / "timing.jsonl", step), best
    )


def seconds_at(timing: Path, step: float) -> float:
    """Seconds of training until `step`, between the two nearest rows; a resumed run's later row of a step counts."""
    seconds = {0: 0.0} | {row["step"]: row["train_seconds"] for row in _rows(timing)}
    steps = sorted(seconds)
    return float(np.interp(step, steps, [seconds[each] for each in steps]))


def read(folders: Iterable[Path], metric: str | None, target: float) -> Rows:
    """The arrivals of all finished runs and of their controls."""
    rows: Rows = defaultdict(dict)
    for folder in folders:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
        own_name = recipe["name"] if recipe.get("policy") else recipe["ordering"]["name"]
        places = {own_name: folder} | {place.name: place for place in sorted((folder / "controls").glob("*/"))}
        for name, place in places.items():
            if not (place / "result.json").exists():
                print(f"{place} is not finished: left out", file=sys.stderr)
                continue
            primary = json.loads((place / "result.json").read_text())["primary"]
            if recipe["seed"] in rows[name]:
                print(f"{place} is a second run of '{name}' with seed {recipe['seed']}: left out", file=sys.stderr)
                continue
            rows[name][recipe["seed"]] = arrival(place, metric or primary, target)
    return rows


def interval(values: list[float]) -> str:
    """`mean ± half` of Student's t 95 % interval; the mean alone of a single value."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} ± {half:.2f}"


def table(rows: Rows, against: str | None) -> str:
    """A Markdown table, a line a run or control."""
    head = ["run", "arrived", "epochs", "seconds", "best score, %"]
    head += [f"epochs − {against}", f"seconds − {against}"] if against else []
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name, by_seed in rows.items():
        there = {seed: when for seed, when in by_seed.items() if when.epochs is not None}
        cells = [name, f"{len(there)} of {len(by_seed)}"]
        cells += [interval([getattr(when, unit) for when in there.values()]) for unit in ("epochs", "seconds")]
        cells.append(interval([100 * when.best for when in by_seed.values()]))
        if against:
            other = rows[against]
            both = [seed for seed in there if seed in other and other[seed].epochs is not None]
            for unit in ("epochs", "seconds"):
                gaps = [getattr(there[seed], unit) - getattr(other[seed], unit) for seed in both]
                cells.append("" if name == against else interval(gaps))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs: runs/<name>/<id>/")
    parser.add_argument("--target", type=float, required=True, help="the score to reach, a share: 0.5 is 50 %%")
    parser.add_argument("--metric", help="a metric of the validation rows; the task's primary one where it is left out")
    parser.add_argument("--against", help="the run or control that all others are compared with, seed by seed")
    given = parser.parse_args()
    if not given.target > 0:
        raise SystemExit(f"every run has a score of {given.target} before it starts: give a --target above 0")
    rows = read(given.runs, given.metric, given.target)
    if given.against is not None and given.against not in rows:
        raise SystemExit(f"there is no '{given.against}' among these runs: choose from {', '.join(rows)}")
    print(table(rows, given.against))


if __name__ == "__main__":
    main()
