"""Several finished runs of one recipe with different seeds, as one table: every seed shown, and the learned order's
difference to each control with Student's t 95 % interval over the seeds.

python benchmarks/study/seeds.py runs/mamba_reinforce/*/          (folders with a result.json)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import yaml
from scipy import stats


def over_seeds(difference_S: np.ndarray) -> tuple[float, float]:
    """Mean over S seeds and half the width of its 95 % interval (Student's t, S - 1 degrees of freedom)."""
    count = len(difference_S)
    half = stats.t.ppf(0.975, count - 1) * difference_S.std(ddof=1) / np.sqrt(count) if count > 1 else float("nan")
    return float(difference_S.mean()), float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    given = parser.parse_args()
    rows: dict[str, dict[int, float]] = {}
    for folder in given.runs:
        result = json.loads((folder / "result.json").read_text())
        seed = yaml.safe_load((folder / "recipe.yaml").read_text())["seed"]
        rows.setdefault(result["name"], {})[seed] = 100 * result["metrics"][result["primary"]]
        for control in result["comparison"]:
            rows.setdefault(control["control"], {})[seed] = 100 * control["value"]
    main_row = next(iter(rows))
    seeds = sorted(rows[main_row])
    print(f"| run | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | {main_row} − this, 95 % over seeds |")
    print("|---|" + "---:|" * (len(seeds) + 2))
    for name, by_seed in rows.items():
        cells = [f"{by_seed[seed]:.1f}" if seed in by_seed else "–" for seed in seeds]
        against = ""
        if name != main_row:
            shared = [seed for seed in seeds if seed in by_seed]
            mean, half = over_seeds(np.array([rows[main_row][seed] - by_seed[seed] for seed in shared]))
            against = f"{mean:+.1f} ± {half:.1f}" + (f" ({len(shared)} seeds)" if len(shared) < len(seeds) else "")
        print(f"| {name} | {' | '.join(cells)} | {np.mean(list(by_seed.values())):.1f} | {against} |")


if __name__ == "__main__":
    main()
