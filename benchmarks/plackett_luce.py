"""Plackett-Luce at N = 196, batch 256: ours against the released code's form of it.

    python benchmarks/plackett_luce.py [--threads 1]

The released form: Gumbel noise, arg-sort, gather, flipped logcumsumexp, all under autograd. Targets: sampling plus
log-probability with gradient at least 1.5x as fast, the log-probability alone (with gradient) at least 4x.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from reorder_core.plackett_luce import gumbel_top_k, plackett_luce_log_prob, uniform_noise

N, BATCH, TAU = 196, 256, 0.2


def released_sample(logits_N: Tensor) -> Tensor:
    logits_BN = logits_N.expand(BATCH, N)
    noise_BN = -torch.log(-torch.log(torch.rand(BATCH, N) + 1e-20) + 1e-20)
    return torch.argsort(logits_BN / TAU + noise_BN, dim=-1, descending=True)


def released_log_prob(logits_N: Tensor, perm_BN: Tensor) -> Tensor:
    chosen_BN = torch.gather(logits_N.expand(BATCH, N), 1, perm_BN)
    left_BN = torch.flip(torch.logcumsumexp(torch.flip(chosen_BN, [1]), dim=1), [1])
    return (chosen_BN - left_BN).sum(1)


def our_sample(logits_N: Tensor) -> Tensor:
    return gumbel_top_k(logits_N.detach() / TAU, uniform_noise(BATCH, N))


def our_log_prob(logits_N: Tensor, perm_BN: Tensor) -> Tensor:
    return plackett_luce_log_prob(logits_N / TAU, perm_BN)


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of one call, in ms, after three to warm up."""
    times = []
    for repeat in range(repeats + 3):
        start = time.perf_counter()
        work()
        if repeat >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logits_N = torch.linspace(0, -1, N)[torch.randperm(N)].requires_grad_()
    perm_BN = our_sample(logits_N)
    rows: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("sampling", lambda: released_sample(logits_N), lambda: our_sample(logits_N)),
        (
            "log-probability, forward + backward",
            lambda: released_log_prob(logits_N, perm_BN).sum().backward(),
            lambda: our_log_prob(logits_N, perm_BN).sum().backward(),
        ),
        (
            "both",
            lambda: released_log_prob(logits_N, released_sample(logits_N)).sum().backward(),
            lambda: our_log_prob(logits_N, our_sample(logits_N)).sum().backward(),
        ),
    ]
    print(f"N = {N}, batch {BATCH}, torch {torch.__version__}, {given.threads} threads, {platform.machine()}")
    for name, released, ours in rows:
        theirs_ms, ours_ms = milliseconds(released, given.repeats), milliseconds(ours, given.repeats)
        print(f"{name:36} released {theirs_ms:7.3f} ms   ours {ours_ms:7.3f} ms   {theirs_ms / ours_ms:5.1f}x")


if __name__ == "__main__":
    main()
