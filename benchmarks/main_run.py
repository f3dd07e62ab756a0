"""The main job's training step: images/s with our scan and with its slow twin, and the share that the policy takes.

python benchmarks/main_run.py [--recipe recipes/mamba_reinforce.yaml] [--threads 2] [--repeats 30]

The two scans take turns in one process. Drawing and updating is timed inside real steps; the forward and backward
passes are the same with and without a policy as long as it asks for one order an image (extra passes: none here).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import reorder_mamba.mixer
import torch
from reorder_mamba.reference import selective_scan_reference

import reorder_core.training.step as step_module
from reorder_core.catalogue import Catalogue
from reorder_core.recipe import load_recipe
from reorder_core.training.build import build_dataset, build_parts
from reorder_core.training.devices import make_accelerator
from reorder_core.training.trainer import Trainer


def twin(*tensors: Any, backend: str = "torch", **options: Any) -> torch.Tensor:
    """The step-by-step reference in place of the fast scan."""
    return selective_scan_reference(*tensors, **options)


@contextmanager
def scan_is(function: Callable[..., torch.Tensor]) -> Iterator[None]:
    fast = reorder_mamba.mixer.selective_scan
    reorder_mamba.mixer.selective_scan = function
    try:
        yield
    finally:
        reorder_mamba.mixer.selective_scan = fast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/mamba_reinforce.yaml"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    catalogue = Catalogue.load()
    recipe = load_recipe(given.recipe)
    dataset = build_dataset(recipe, catalogue)
    trainer = Trainer.make(build_parts(recipe, catalogue, dataset), make_accelerator("cpu", "fp32"), {})
    size = recipe.training.batch_size
    batches = [dataset.train.load(range(i * size, (i + 1) * size), 0) for i in range(8)]
    policy, seconds = trainer.parts.policy, {"policy": 0.0}

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            seconds["policy"] += time.perf_counter() - start
            return result

        return call

    policy.draw = timed(policy.draw)
    step_module._policy_step = timed(step_module._policy_step)

    def one(number: int) -> tuple[float, float]:
        batch = batches[number % len(batches)]
        seconds["policy"] = 0.0
        start = time.perf_counter()
        step_module.train_step(trainer, batch, batch.index_B)
        return time.perf_counter() - start, seconds["policy"]

    for number in range(5):
        one(number)
    fast, slow, share = [], [], []
    for number in range(given.repeats):
        trainer.step = trainer.table.learn_start  # a step of the learning phase
        took, in_policy = one(number)
        fast.append(took)
        share.append(in_policy / took)
        if number % 5 == 0:  # the twin takes long: every fifth turn
            with scan_is(twin):
                slow.append(one(number)[0])
    ours, theirs = statistics.median(fast), statistics.median(slow)
    print(f"{given.recipe}, batch {size}, torch {torch.__version__}, {given.threads} threads, {platform.machine()}\n")
    print("| scan | step, ms | images/s | ratio |\n|---|---:|---:|---:|")
    print(f"| ours | {1e3 * ours:.1f} | {size / ours:.0f} | 1 |")
    print(f"| twin | {1e3 * theirs:.1f} | {size / theirs:.0f} | {theirs / ours:.1f} |")
    print(
        f"\npolicy (draw, observe, backward, AdamW): {100 * statistics.median(share):.2f} % of a learning step, median"
    )


if __name__ == "__main__":
    main()
