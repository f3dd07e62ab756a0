"""Models × orders from finished runs, as a table and a picture: which models react to the order, and how much.

python benchmarks/study/models.py runs/vit/*/ runs/mamba/*/ …  [--picture FILE.png] [--label positions.kind]

Each run is a model in one order with controls in others (recipes/models/). A cell is the mean over seeds, then each
seed. "order" is the range of the orders' means; "seed" the mean standard deviation over seeds within an order, so that
one can be read against the other. F is that of a one-way analysis of variance of the orders (seeds as repetitions).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

Scores = dict[str, dict[str, dict[int, float]]]  # model -> order -> seed -> percent


def read(folders: list[Path], labels: list[str]) -> tuple[Scores, dict[str, float]]:
    """Scores of all runs, and the seconds of all trainings of each model."""
    scores: Scores = defaultdict(lambda: defaultdict(dict))
    seconds: dict[str, float] = defaultdict(float)
    for folder in folders:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
        model = " ".join([recipe["name"], *(str(_at(recipe, label)) for label in labels)])
        places = {recipe["ordering"]["name"]: folder}
        places |= {place.name: place for place in sorted((folder / "controls").glob("*/"))}
        for order, place in places.items():
            if not (place / "result.json").exists():
                print(f"{place} is not finished: left out", file=sys.stderr)
                continue
            result = json.loads((place / "result.json").read_text())
            scores[model][order][recipe["seed"]] = 100 * result["metrics"][result["primary"]]
            seconds[model] += result["seconds"]
    return scores, seconds


def _at(recipe: dict, path: str) -> object:
    found: object = recipe
    for key in path.split("."):
        found = found[key]  # type: ignore[index]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--label", action="append", default=[], help="a key of the recipe that tells rows apart")
    given = parser.parse_args()
    scores, seconds = read(given.runs, given.label)
    orders = list(dict.fromkeys(order for by_order in scores.values() for order in by_order))
    print(f"| model | {' | '.join(orders)} | order | seed | F (p) | CPU minutes |")
    print("|---|" + "---:|" * (len(orders) + 4))
    for model, by_order in scores.items():
        cells = []
        for order in orders:
            by_seed = by_order.get(order, {})
            each = " ".join(f"{by_seed[seed]:.0f}" for seed in sorted(by_seed))
            cells.append(f"{np.mean(list(by_seed.values())):.1f} ({each})" if by_seed else "–")
        means = [np.mean(list(by_seed.values())) for by_seed in by_order.values()]
        groups = [list(by_seed.values()) for by_seed in by_order.values()]
        spread, test = "–", "–"
        if all(len(group) > 1 for group in groups):
            spread = f"{np.mean([np.std(group, ddof=1) for group in groups]):.1f}"
            found = stats.f_oneway(*groups)
            test = f"{found.statistic:.1f} ({found.pvalue:.3f})"
        print(
            f"| {model} | {' | '.join(cells)} | {max(means) - min(means):.1f} | {spread} | {test} "
            f"| {seconds[model] / 60:.0f} |"
        )
    if given.picture:
        draw(scores, orders, given.picture)


def draw(scores: Scores, orders: list[str], path: Path) -> None:
    """A column a model, a dot a training, a bar each order's mean: the paper's first figure in small."""
    figure = Figure(figsize=(1.7 + 1.25 * len(scores), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
    for place, by_order in enumerate(scores.values()):
        for number, order in enumerate(orders):
            values = list(by_order.get(order, {}).values())
            x = place + 0.7 * (number / max(1, len(orders) - 1) - 0.5)
            colour = colours[number % len(colours)]
            axis.plot([x] * len(values), values, "o", ms=3.5, color=colour, alpha=0.6)
            if values:
                axis.plot(
                    [x - 0.06, x + 0.06], [np.mean(values)] * 2, lw=3, color=colour, label=order if not place else ""
                )
    axis.axhline(10, color="#999999", lw=0.8, ls=":")
    axis.set_xticks(range(len(scores)), [model.replace("_", "\n") for model in scores])
    axis.set_ylabel("top-1, %  (dotted: chance)")
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(orders), frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
