"""One measurement shared out over the processes of `accelerate launch` or `torchrun`, and put together again.

The first process fits what learns and hands it to the others; each measures its blocks of images; their sums are added.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np

from reorder_core import ReorderError, RunError, UsageError
from reorder_prior.measure import WHOLE, Share
from reorder_prior.pooled import PairCounts
from reorder_prior.tally import SUMS, Tally

Part = TypeVar("Part")

_PATIENCE = timedelta(days=7)  # the others wait while the first one fits, and for the slowest; a dead one ends all


def open_share() -> Share:
    """This process among the others, as the launcher's variables say; the whole where there is no launcher."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return WHOLE
    from accelerate import PartialState

    state = PartialState(cpu=True, timeout=_PATIENCE)
    return Share(state.process_index, state.num_processes)


def every(share: Share, part: Callable[[], Part]) -> Part:
    """What `part` gives here, once every process has its own.

    One that fails says so instead of leaving the others waiting: then each raises its sentence, as `UsageError` or
    `RunError`.
    """
    if share.processes == 1:
        return part()
    from accelerate.utils import gather_object

    found: list[Part] = []
    failed: tuple[int, str] | None = None
    try:
        found.append(part())
    except Exception as error:  # whatever it was, the others are waiting
        failed = (1, f"{type(error).__name__}: {error}")
        if isinstance(error, ReorderError):
            failed = (error.exit_code, str(error))
    for each in gather_object([failed]):
        if each is not None:
            code, sentence = each
            raise UsageError(sentence) if code == UsageError.exit_code else RunError(sentence)
    return found[0]


def fit_once(share: Share, tokenizer: Any, fit: Callable[[], None]) -> None:
    """Fit a tokenizer that is not fitted yet: in the first process, which hands on what it learned.

    One without `state_dict` is fitted by every process, and `agree` has to tell whether they came to the same.
    """
    if tokenizer.fitted:
        return
    hands_on = hasattr(tokenizer, "state_dict")
    every(share, lambda: None if share.process and hands_on else fit())
    if share.processes > 1 and hands_on:
        from accelerate.utils import broadcast_object_list

        told = broadcast_object_list([None if share.process else tokenizer.state_dict()], from_process=0)
        if share.process:
            tokenizer.load_state_dict(told[0])


def agree(share: Share, made: Callable[[], bytes], advice: str) -> None:
    """Raise `RunError` with the advice where what the processes made is not the same, byte by byte."""
    if share.processes == 1:
        return
    from accelerate.utils import gather_object

    mark = every(share, lambda: hashlib.sha256(made()).hexdigest())
    if len({*gather_object([mark])}) > 1:
        raise RunError(advice)


def summed(share: Share, part: Callable[[], Tally]) -> Tally:
    """The sum of what all processes measured, the same in each of them. Raises as `every` does."""
    tally = every(share, part)
    if share.processes == 1:
        return tally
    for name in SUMS:
        setattr(tally, name, _added(getattr(tally, name)))
    tally.pairs_OE = [[_added_pairs(share, pairs) for pairs in pairs_E] for pairs_E in tally.pairs_OE]
    return tally


def _added(value: Any) -> Any:
    """A number or an array, summed over the processes."""
    import torch
    from accelerate.utils import reduce

    total = reduce(torch.from_numpy(np.atleast_1d(value)), reduction="sum").numpy()
    return total if isinstance(value, np.ndarray) else total[0].item()


def _added_pairs(share: Share, pairs: PairCounts) -> PairCounts:
    """Counters add up. Of pairs that came up, each process tells its own in turn, so that one lot is held at a time."""
    if pairs.is_dense:
        pairs.count_P = _added(pairs.count_P)
        return pairs
    from accelerate.utils import broadcast_object_list

    total = PairCounts(pairs.codes, pairs.distance)
    for process in range(share.processes):
        told = broadcast_object_list([pairs if process == share.process else None], from_process=process)
        total.merge(told[0])
    return total


def close_share(share: Share) -> None:
    """Leave the other processes."""
    if share.processes > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


def cores(share: Share = WHOLE) -> int:
    """The cores that this process may use, shared with the others of the same machine."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", share.processes))
    return max(1, there // local)
