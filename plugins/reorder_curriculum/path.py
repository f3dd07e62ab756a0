"""Ways from one order to another, as pure functions of how far one has come.

N patches, `order[slot] = patch`, int64 [N].
"""

from __future__ import annotations

import torch
from torch import Tensor


def blend(start_N: Tensor, end_N: Tensor, weight: float) -> Tensor:
    """Patches sorted by (1 − weight) · slot in start + weight · slot in end; ties stand as in the end.

    Weight 0 is the start and 1 the end. Two patches change their succession at most once on the way, and only if the
    two orders differ in it, so that Kendall's τ to the end never falls.
    """
    slot_N = (1.0 - weight) * start_N.argsort().double() + weight * end_N.argsort().double()
    return end_N[slot_N[end_N].argsort(stable=True)]


def settle(start_N: Tensor, end_N: Tensor, settled: int, from_the_back: bool) -> Tensor:
    """`settled` slots, the first or the last, as in the end; the other patches in the succession of the start."""
    n = len(end_N)
    done_N = torch.zeros(n, dtype=torch.bool, device=end_N.device)
    placed = end_N[n - settled :] if from_the_back else end_N[:settled]
    done_N[placed] = True
    rest = start_N[~done_N[start_N]]
    return torch.cat([rest, placed] if from_the_back else [placed, rest])


def settled_slots(weight: float, slots: int, n: int) -> int:
    """How many of n slots are settled when `weight` of the way is gone, in whole moves of `slots` slots."""
    return n if weight >= 1.0 else int(weight * n / slots + 1e-9) * slots
