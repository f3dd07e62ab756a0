"""TensorBoard events of a run: the same numbers as `metrics.jsonl`, for those who watch them there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

_LOG = logging.getLogger(__name__)
_NOT_A_CURVE = ("event", "step", "epoch")


@cache
def _say_missing() -> None:
    """Once a command, not once for every control."""
    _LOG.info("no TensorBoard events are written: install them with: pip install 'reorder[tensorboard]'")


class TensorBoard:
    """Writes rows of `metrics.jsonl` as events into `folder`; says once, in the log, that the extra is missing.

    done_steps: how many steps a resumed run has behind it; events of later steps, left by the run that was cut off,
    are hidden by the new file, so that no step is shown twice.
    """

    def __init__(self, folder: Path, done_steps: int = 0) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _say_missing()
            return
        purge = done_steps + 1 if done_steps else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    @property
    def writing(self) -> bool:
        """Whether events are written at all."""
        return self._writer is not None

    def write(self, row: Mapping[str, Any]) -> None:
        """One row of `metrics.jsonl`: its numbers as `train/NAME`, `validation/NAME`, `order/NAME`."""
        if self._writer is None:
            return
        group = "train" if row["event"] == "step" else str(row["event"])
        for name, value in row.items():
            if name not in _NOT_A_CURVE and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{group}/{name}", float(value), int(row["step"]))

    def close(self) -> None:
        """Flush what is written; the object writes no more after it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
