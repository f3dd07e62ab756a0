"""What the policy reinforce costs a training step, apart from extra forward passes: draw, observe, backward, AdamW.

python benchmarks/policy.py [--threads 1] [--batch 64]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import numpy as np
import torch
from reorder_reinforce.policy import Reinforce
from reorder_reinforce.settings import ReinforceSettings

from reorder_core import Clock, Context, Grid, Outcome

CLOCK = Clock(step=5, steps_per_epoch=10, learn_start=0, learn_stop=10, total=10)
VARIANTS: dict[str, dict[str, object]] = {
    "defaults (8 orders, 8 coefficients)": {},
    "a logit for each patch": {"logits": "patch"},
    "8 orders on each image": {"orders_per_image": 8},
    "faithful: paper": {"faithful": "paper"},
}


def step_ms(side: int, batch: int, repeats: int, settings: dict[str, object]) -> float:
    """Median time of one policy step on a side x side grid, in ms, after five to warm up."""
    context = Context(Grid(side, side), prior_N=np.arange(side * side), generator=torch.Generator().manual_seed(0))
    policy = Reinforce(ReinforceSettings(**settings), context)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.0)
    outcome = Outcome(torch.rand(policy.orders_per_image, batch), torch.arange(batch), CLOCK)
    times = []
    for repeat in range(repeats + 5):
        start = time.perf_counter()
        step = policy.observe(policy.draw(batch, None, 0.15), outcome)
        assert step.loss is not None
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        if repeat >= 5:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"batch {given.batch}, torch {torch.__version__}, {given.threads} threads, {platform.machine()}")
    for name, settings in VARIANTS.items():
        for side in (8, 14):
            milliseconds = step_ms(side, given.batch, given.repeats, settings)
            print(f"{name:36} N = {side * side:4}   {milliseconds:6.2f} ms a step")


if __name__ == "__main__":
    main()
