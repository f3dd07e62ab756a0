"""What reordering on the way costs, and what early exit saves.

    python benchmarks/dynamic_reorder.py [--threads 1] [--images 6144] [--epochs 3] [--seed 0]

1. Cost: a forward pass in evaluation with `dynamic_reorder` and without, in turn in one process, medians, and how much
   of a pass the module's own work is (norm, scores, sort, gather, and planning the blocks anew). Target: < 5 %.
2. Saving: a small Mamba trained on cluttered digits; thresholds on the confidence at the exit against accuracy, the
   share of images that leave, and the time of the whole validation split as measured.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from reorder_dynamic.early_exit import Answer, answer
from torch import Tensor

from reorder_core import ComponentRef, Context, Grid, Layout
from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main as reorder
from reorder_core.opened import Opened, open_run

RECIPE = Path(__file__).parents[1] / "recipes" / "dynamic.yaml"
SHAPES: Sequence[tuple[str, dict[str, Any], int, int]] = (
    # backbone, its settings, side of the grid, images
    ("mamba", {"width": 192, "depth": 12, "readout": "last"}, 14, 8),
    ("longformer", {"width": 192, "depth": 12, "heads": 3}, 14, 8),
    ("vit", {"width": 192, "depth": 12, "heads": 3}, 14, 8),
    ("mamba", {"width": 48, "depth": 4, "state": 4, "readout": "last"}, 8, 64),
)
THRESHOLDS = (1.01, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.0)


def median_ratio(work: Callable[[], object], twin: Callable[[], object], seconds: float) -> tuple[float, float, float]:
    """Median ms of both, alternating, and the median of their ratios in each round."""
    times: list[tuple[float, float]] = []
    stop = time.perf_counter() + seconds
    for turn in (work, twin, work, twin):
        turn()
    while time.perf_counter() < stop or len(times) < 5:
        pair = []
        for turn in (work, twin) if len(times) % 2 else (twin, work):
            start = time.perf_counter()
            turn()
            pair.append(time.perf_counter() - start)
        times.append((pair[0], pair[1]) if len(times) % 2 else (pair[1], pair[0]))
    one, two = zip(*times, strict=True)
    ratio = statistics.median(a / b for a, b in times)
    return statistics.median(one) * 1e3, statistics.median(two) * 1e3, ratio


@torch.no_grad()
def cost(name: str, settings: dict[str, Any], side: int, batch: int, seconds: float) -> None:
    """One line: with and without, and the work itself."""
    grid, catalogue = Grid(side, side), Catalogue.load()
    made = {}
    for between in (None, {"name": "dynamic_reorder", "after": settings["depth"] // 3}):
        context = Context(grid, generator=torch.Generator().manual_seed(0), builder=catalogue.build).changed()
        made[between is None] = catalogue.build(
            ComponentRef("backbone", name, {**settings, "between": between}), context
        ).eval()
    plain, dynamic = made[True], made[False]
    draw = torch.Generator().manual_seed(1)
    dynamic.between.weight_D.copy_(torch.randn(settings["width"], generator=draw))
    tokens_BND = torch.randn(batch, grid.size, settings["width"], generator=draw)
    layout = Layout.fixed(grid, torch.arange(grid.size))
    with_ms, without_ms, ratio = median_ratio(
        lambda: dynamic(tokens_BND, layout), lambda: plain(tokens_BND, layout), seconds
    )
    k = settings["depth"] // 3 - 1

    def own_work() -> Tensor:
        weight_BN = dynamic.between.exit_weights(k, tokens_BND, layout)
        exit_BD = torch.einsum("bn,bnd->bd", weight_BN, dynamic.final_norm(tokens_BND))
        after_BND, after = dynamic.between(k, tokens_BND, layout)
        dynamic.plan(after.with_special(dynamic.special_places(grid.size)))
        return after_BND.sum() + exit_BD.sum()

    own_ms, _, share = median_ratio(own_work, lambda: plain(tokens_BND, layout), seconds)
    print(
        f"  {name:<11} D {settings['width']:>3} x {settings['depth']:>2} blocks, N {grid.size:>3}, {batch:>2} images: "
        f"{without_ms:7.1f} ms without, {with_ms:7.1f} ms with ({100 * (ratio - 1):+.1f} %); "
        f"its own work {own_ms:.2f} ms ({100 * share:.1f} %)"
    )


def trained(images: int, epochs: int, seed: int, folder: Path) -> Opened:
    """The shipped recipe, shortened."""
    overrides = [f"data.train={images}", f"training.epochs={epochs}", f"seed={seed}", "controls=[]"]
    arguments = [part for each in overrides for part in ("-o", each)]
    assert reorder(["run", str(RECIPE), "--out", str(folder), "--device", "cpu", *arguments]) == 0
    (run,) = (folder / "dynamic").iterdir()
    return open_run(run, "cpu")


def saving(opened: Opened) -> None:
    """A line for each threshold: accuracy, who leaves, time of the split, and the loss of accuracy beside the gain."""
    batches = list(opened.batches(opened.dataset.validation, len(opened.dataset.validation)))
    layout = Layout.fixed(opened.grid, torch.from_numpy(opened.order_N))
    total = sum(len(batch) for batch in batches)
    between, depth = opened.model.backbone.between, opened.recipe.backbone.settings.depth
    print(f"  exit after {between.settings.after} of {depth} blocks, {total} images")
    times: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    found: dict[float, list[Answer]] = {}
    for _ in range(5):  # in turn, so that a busy moment strikes all alike
        for threshold in THRESHOLDS:
            start = time.perf_counter()
            found[threshold] = [
                answer(opened.model, opened.task, batch.images_BCHW, layout, threshold) for batch in batches
            ]
            times[threshold].append(time.perf_counter() - start)
    for threshold, answers in found.items():
        right = sum(
            int((one.logits_BK.argmax(1) == batch.target).sum()) for one, batch in zip(answers, batches, strict=True)
        )
        early = sum(int(one.early_B.sum()) for one in answers) / total
        blocks = early * (1 - between.settings.after / depth)
        saved = statistics.median(
            1 - own / all_ for own, all_ in zip(times[threshold], times[THRESHOLDS[0]], strict=True)
        )
        print(
            f"  threshold {threshold:4.2f}: top-1 {100 * right / total:5.1f} %, {100 * early:5.1f} % leave: "
            f"{100 * blocks:4.1f} % of the blocks and {100 * saved:5.1f} % of the time saved"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=6144)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each line of the cost")
    parser.add_argument("--only", choices=("cost", "saving"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {given.threads} threads")
    if given.only != "saving":
        print("Cost of dynamic_reorder in a forward pass:")
        for shape in SHAPES:
            cost(*shape, given.seconds)
    if given.only != "cost":
        print("Saving of early exit:")
        with TemporaryDirectory() as folder:
            saving(trained(given.images, given.epochs, given.seed, Path(folder)))


if __name__ == "__main__":
    main()
