"""Every task of recipes/tasks/ in its learned order, row by row and in another order: runs, a table, and curves.

python benchmarks/study/tasks.py run recipes/tasks/*.yaml --seeds 0 1 --out runs/tasks --jobs 2
python benchmarks/study/tasks.py table runs/tasks
python benchmarks/study/tasks.py curves runs/tasks --to docs/pictures/tasks.png

A recipe is run with its controls, one thread a run; a recipe and seed that has its comparison is not run again, and one
that was interrupted is resumed. Differences are those of scores of images (of the primary metric where its mean over
images is the metric), learned minus fixed: paired over images for one seed, a t interval over seeds for several.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from reorder_core.bootstrap import paired_bootstrap

PERCENT = ("top", "accuracy", "map", "miou", "exact", "f1")


def finished(folder: Path) -> Path | None:
    """The newest run in a folder whose controls are all done: the comparison is written last."""
    for path in sorted(folder.glob("*/*/result.json"), reverse=True):
        if json.loads(path.read_text())["comparison"]:
            return path.parent
    return None


def train(recipe: Path, seed: int, out: Path, given: list[str]) -> str:
    folder = out / recipe.stem / f"seed{seed}"
    if finished(folder):
        return f"{recipe.stem} seed {seed}: done before"
    command = [sys.executable, "-m", "reorder_core", "run", str(recipe), "--out", str(folder), "-o", f"seed={seed}"]
    command += [part for value in given for part in ("-o", value)]
    command += ["--resume"] if any(folder.glob("*/*/checkpoints")) else []
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
    run = finished(folder)
    if code or run is None:
        return f"{recipe.stem} seed {seed}: FAILED with {code}, see {folder / 'log.txt'}"
    said = [f"{name} {shown(*primary(each))}" for name, each in runs_of(run).items()]
    return f"{recipe.stem} seed {seed}: " + ", ".join(said)


def runs_of(run: Path) -> dict[str, Path]:
    """The main run and its controls, by name."""
    controls = {path.parent.name: path.parent for path in sorted(run.glob("controls/*/result.json"))}
    return {"learned": run, **controls}


def primary(run: Path) -> tuple[str, float]:
    result = json.loads((run / "result.json").read_text())
    return result["primary"], result["metrics"][result["primary"]]


def shown(metric: str, value: float) -> str:
    return f"{100 * value:.1f} %" if metric.startswith(PERCENT) else f"{value:.3f}"


def studies(out: Path) -> dict[str, dict[int, Path]]:
    """recipe -> seed -> the run."""
    found: dict[str, dict[int, Path]] = {}
    for folder in sorted(out.glob("*/seed*")):
        if (run := finished(folder)) is not None:
            found.setdefault(folder.parent.name, {})[int(folder.name.removeprefix("seed"))] = run
    return found


def run(given: argparse.Namespace) -> None:
    with ThreadPoolExecutor(given.jobs) as pool:
        jobs = [
            pool.submit(train, recipe, seed, given.out, given.set) for seed in given.seeds for recipe in given.recipes
        ]
        for job in jobs:
            print(job.result(), flush=True)


def table(given: argparse.Namespace) -> None:
    print("| recipe | metric | order | each seed | learned minus this, in the score of an image | seconds |")
    print("|---|---|---|---|---:|---:|")
    for name, seeds in studies(given.out).items():
        names = dict.fromkeys(each for run in seeds.values() for each in runs_of(run))
        for order in names:
            rows = {seed: runs_of(run)[order] for seed, run in seeds.items() if order in runs_of(run)}
            metric = primary(next(iter(rows.values())))[0]
            each = ", ".join(shown(*primary(rows[seed])) for seed in sorted(rows))
            results = [json.loads((row / "result.json").read_text()) for row in rows.values()]
            seconds = np.median([result["seconds"] for result in results])
            against = "" if order == "learned" else difference(seeds, rows, results[0]["score"])
            print(f"| {name} | {metric} | {order} | {each} | {against} | {seconds:.0f} |")


def difference(seeds: dict[int, Path], rows: dict[int, Path], score: str) -> str:
    scale = 100 if score.startswith(PERCENT) else 1
    pairs = [(np.load(seeds[s] / "scores.npy") * scale, np.load(rows[s] / "scores.npy") * scale) for s in rows]
    if len(pairs) == 1:
        interval = paired_bootstrap(*pairs[0])
        return f"{interval.mean:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}] {score}"
    gaps = np.array([one.mean() - other.mean() for one, other in pairs])
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return f"{gaps.mean():+.3g} ± {half:.3g} {score}"


def curve(run: Path, metric: str) -> tuple[list[int], list[float]]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["event"] == "validation"]
    return [row["epoch"] for row in rows], [row[metric] for row in rows]


def curves(given: argparse.Namespace) -> None:
    from matplotlib.figure import Figure

    found = studies(given.out)
    columns = min(4, len(found))
    figure = Figure(figsize=(3.4 * columns, 2.7 * -(-len(found) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(found) // columns), columns, squeeze=False).ravel()
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    for panel, (name, seeds) in zip(panels, found.items(), strict=False):
        metric = primary(next(iter(seeds.values())))[0]
        orders = dict.fromkeys(each for run in seeds.values() for each in runs_of(run))
        for number, order in enumerate(orders):
            for seed, run in seeds.items():
                epochs, values = curve(runs_of(run)[order], metric)
                style = ("-", "--", "-.", ":")[number % 4]
                label = order if seed == min(seeds) else None
                panel.plot(epochs, values, style, color=f"C{number}", label=label, lw=2 if number == 0 else 1.3)
        panel.set(title=name, xlabel="epoch", ylabel=metric)
        panel.legend(fontsize=7, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    given.to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.to, dpi=90, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("recipes", type=Path, nargs="+")
    one.add_argument("--out", type=Path, default=Path("runs/tasks"))
    one.add_argument("--seeds", type=int, nargs="+", default=[0])
    one.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of every recipe")
    one.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    one.set_defaults(do=run)
    two = commands.add_parser("table")
    two.add_argument("out", type=Path)
    two.set_defaults(do=table)
    three = commands.add_parser("curves")
    three.add_argument("out", type=Path)
    three.add_argument("--to", type=Path, required=True)
    three.set_defaults(do=curves)
    given = parser.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
