"""Every policy against fixed orders and negative controls on the recipes of recipes/policies/, a cell a training.

python benchmarks/study/policies.py run recipes/policies/digits_mamba.yaml --seeds 0 --out runs/study --jobs 2
python benchmarks/study/policies.py run recipes/policies/cifar_mamba.yaml --seeds 0 1 2 3 4 --cells row_major spiral \
    reinforce --static reinforce --out runs/study --set data.root=…
python benchmarks/study/policies.py table runs/study/digits_mamba --against row_major

A cell that has a result is not run again, so that a broken study is taken up by the same command. Fixed orders are runs
without a policy; `random_each_batch` is the policy `uniform`; `static:X` is a fresh training in the order that policy X
learned with the same seed, `inverse:X` in the inverse of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import stats

from reorder_core.bootstrap import paired_bootstrap

FIXED = ("row_major", "column_major", "hilbert", "spiral", "diagonal", "snake")
CELLS: dict[str, list[str]] = {
    **{name: ["policy=null", f"ordering.name={name}"] for name in FIXED},
    "random_fixed": ["policy=null", "ordering={name: random, seed: 1}"],
    "random_each_batch": ["policy={name: uniform}"],
    **{
        name: [f"policy.name={name}"]
        for name in (
            "reinforce",
            "gumbel_sinkhorn",
            "softsort",
            "shuffle_softsort",
            "curve_bandit",
            "random_search",
            "evolution",
            "amortised",
        )
    },
    "softsort_lapsum": ["policy={name: softsort, relaxation: lapsum}"],
    "amortised_softsort": ["policy={name: amortised, estimator: softsort}"],
}


def finished(folder: Path) -> Path | None:
    """The newest finished run in a cell's folder."""
    return max((path.parent for path in folder.glob("*/*/result.json")), default=None)


def overrides(cell: str, study: Path, seed: int) -> list[str]:
    """What a cell changes of its recipe; raises FileNotFoundError where the order it needs is not learned yet."""
    kind, _, policy = cell.partition(":")
    if not policy:
        return CELLS[cell]
    run = finished(study / policy / f"seed{seed}")
    if run is None:
        raise FileNotFoundError(f"{cell} needs a finished run of {policy} with seed {seed}")
    order = run / "order.json"
    if kind == "inverse":
        content = json.loads(order.read_text())
        content["permutation"] = np.argsort(content["permutation"]).tolist()
        order = run / "inverse.json"
        order.write_text(json.dumps(content))
    return ["policy=null", f"ordering={{name: file, path: {order}}}"]


def train(recipe: Path, cell: str, study: Path, seed: int, given: list[str]) -> str:
    folder = study / cell.replace(":", "_") / f"seed{seed}"
    if finished(folder):
        return f"{study.name} {cell} seed {seed}: done before"
    command = [sys.executable, "-m", "reorder_core", "run", str(recipe), "--out", str(folder)]
    for value in (*overrides(cell, study, seed), f"seed={seed}", "controls=[]", *given):
        command += ["-o", value]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ).returncode
    run = finished(folder)
    if code or run is None:
        return f"{study.name} {cell} seed {seed}: FAILED with {code}, see {folder / 'log.txt'}"
    result = json.loads((run / "result.json").read_text())
    return f"{study.name} {cell} seed {seed}: {100 * result['metrics']['top1']:.1f} in {result['seconds']:.0f} s"


def run(given: argparse.Namespace) -> None:
    study = given.out / given.recipe.stem
    cells = given.cells or list(CELLS)
    late = [f"{kind}:{policy}" for kind in ("static", "inverse") for policy in getattr(given, kind)]
    with ThreadPoolExecutor(given.jobs) as pool:
        for group in (cells, late):
            jobs = [
                pool.submit(train, given.recipe, cell, study, seed, given.set) for seed in given.seeds for cell in group
            ]
            for job in jobs:
                print(job.result(), flush=True)


def scores(study: Path) -> dict[str, dict[int, tuple[np.ndarray, float]]]:
    """cell -> seed -> (per-image scores in points, seconds)."""
    found: dict[str, dict[int, tuple[np.ndarray, float]]] = {}
    for folder in sorted(study.glob("*/seed*")):
        if (done := finished(folder)) is not None:
            seconds = json.loads((done / "result.json").read_text())["seconds"]
            seed = int(folder.name.removeprefix("seed"))
            found.setdefault(folder.parent.name, {})[seed] = (100 * np.load(done / "scores.npy"), seconds)
    return found


def table(given: argparse.Namespace) -> None:
    """Every seed, the mean, and the difference to one cell: over images for one seed, over seeds for several."""
    found = scores(given.study)
    base = found[given.against]
    print(f"| order or policy | top-1 of each seed | mean | minus {given.against} | seconds |")
    print("|---|---|---:|---:|---:|")
    for cell, seeds in sorted(found.items(), key=lambda item: -np.mean([s.mean() for s, _ in item[1].values()])):
        if len(seeds) < given.least:
            continue
        shared = sorted(seeds.keys() & base.keys())
        means = {seed: score.mean() for seed, (score, _) in seeds.items()}
        against = ""
        if cell != given.against and len(shared) > 1:
            difference = np.array([means[seed] - base[seed][0].mean() for seed in shared])
            half = stats.t.ppf(0.975, len(shared) - 1) * difference.std(ddof=1) / np.sqrt(len(shared))
            against = f"{difference.mean():+.1f} ± {half:.1f}"
        elif cell != given.against and shared:
            interval = paired_bootstrap(seeds[shared[0]][0], base[shared[0]][0])
            against = f"{interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"
        each = " ".join(f"{means[seed]:.1f}" for seed in sorted(means))
        seconds = np.median([value for _, value in seeds.values()])
        print(f"| {cell} | {each} | {np.mean(list(means.values())):.1f} | {against} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("recipe", type=Path)
    one.add_argument("--out", type=Path, default=Path("runs/study"))
    one.add_argument("--seeds", type=int, nargs="+", default=[0])
    one.add_argument("--cells", nargs="+", choices=list(CELLS), default=[])
    one.add_argument("--static", nargs="+", default=[], help="policies whose learned order is trained from scratch")
    one.add_argument("--inverse", nargs="+", default=[], help="policies whose learned order is inverted")
    one.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further overrides of the recipe")
    one.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    one.set_defaults(do=run)
    two = commands.add_parser("table")
    two.add_argument("study", type=Path)
    two.add_argument("--against", default="row_major")
    two.add_argument("--least", type=int, default=1, help="leave out cells with fewer seeds")
    two.set_defaults(do=table)
    given = parser.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
