"""One measurement shared out over the processes of `accelerate launch` or `torchrun`, and put together again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from reorder_core import ReorderError, RunError
from reorder_prior.measure import WHOLE, Share
from reorder_prior.tally import Tally, merged


def open_share() -> Share:
    """This process among the others, as the launcher's variables say; the whole where there is no launcher."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return WHOLE
    from accelerate import PartialState

    state = PartialState(cpu=True)
    return Share(state.process_index, state.num_processes)


def summed(share: Share, part: Callable[[], Tally]) -> Tally:
    """The sum of what all processes measured, the same in each of them.

    A process that fails says so instead of leaving the others waiting: then every one raises `RunError`.
    """
    if share.processes == 1:
        return part()
    from accelerate.utils import gather_object

    found: Tally | str
    try:
        found = part()
    except Exception as error:  # whatever it was, the others are waiting
        found = str(error) if isinstance(error, ReorderError) else f"{type(error).__name__}: {error}"
    return sum_of(gather_object([found]))


def sum_of(found: Sequence[Tally | str]) -> Tally:
    """The merged tallies. Raises `RunError` with the first sentence among them, which is why one is missing."""
    for each in found:
        if isinstance(each, str):
            raise RunError(each)
    return merged(each for each in found if isinstance(each, Tally))


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
