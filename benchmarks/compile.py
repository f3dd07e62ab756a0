"""What `training.compile: true` is worth: a training step of each recipe, eager and compiled, in one process.

    python benchmarks/compile.py recipes/models/*.yaml --threads 2

Medians of alternating steps (forward, backward, AdamW; the recipe's data, batch size and model); the compilation,
forward and backward, is the first step and is shown apart.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path

import torch

from reorder_core.catalogue import Catalogue
from reorder_core.recipe import load_recipe
from reorder_core.training.build import build_dataset, build_parts
from reorder_core.training.devices import make_accelerator
from reorder_core.training.step import train_step
from reorder_core.training.trainer import Trainer


def trainer_of(path: Path, compiled: bool, images: int, device: str) -> tuple[Trainer, list]:
    """A run before its first step, and some of its batches."""
    catalogue = Catalogue.load()
    sizes = [f"data.train={images}", "data.validation=64"] if "cluttered_digits" in path.read_text() else []
    overrides = ["policy=null", "controls=[]", f"training.compile={str(compiled).lower()}", *sizes]
    recipe = load_recipe(path, overrides)
    dataset = build_dataset(recipe, catalogue)
    trainer = Trainer.make(build_parts(recipe, catalogue, dataset), make_accelerator(device, "fp32"), {})
    size = recipe.training.batch_size
    return trainer, [dataset.train.load(range(i * size, (i + 1) * size), 0) for i in range(images // size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(f"torch {torch.__version__}, {given.threads} threads, {given.device}\n")
    print("| model | eager ms | compiled ms | gain | first compiled step, s |\n|---|---:|---:|---:|---:|")
    for path in given.recipes:
        torch.compiler.reset()
        ways = {compiled: trainer_of(path, compiled, 256, given.device) for compiled in (False, True)}
        times: dict[bool, list[float]] = {False: [], True: []}
        first = 0.0
        for number in range(given.repeats + 2):
            for compiled, (trainer, batches) in ways.items():
                batch = batches[number % len(batches)]
                start = time.perf_counter()
                train_step(trainer, batch, batch.index_B)
                if given.device == "cuda":
                    torch.cuda.synchronize()
                took = time.perf_counter() - start
                if number < 2:  # warm-up, and for the compiled one its compilation
                    first += took if compiled else 0.0
                else:
                    times[compiled].append(took)
        eager, fast = (1e3 * statistics.median(times[compiled]) for compiled in (False, True))
        print(f"| {path.stem} | {eager:.1f} | {fast:.1f} | {eager / fast:.2f} | {first:.0f} |", flush=True)


if __name__ == "__main__":
    main()
