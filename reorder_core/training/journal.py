"""The run's own records: `metrics.jsonl`, which a resume continues bit for bit, and `timing.jsonl`, which it cannot."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from reorder_core.errors import RunError
from reorder_core.training.tensorboard import TensorBoard


class Journal:
    """Appends rows. folder None (another process, a dry run) writes nothing.

    `metrics.jsonl` is a pure function of recipe, seed and device; seconds and images/s go to `timing.jsonl`.
    """

    def __init__(self, folder: Path | None, length: int = 0, done_steps: int = 0) -> None:
        self._file = self._timing = self._board = None
        if folder is None:
            return
        path = folder / "metrics.jsonl"
        self._file = path.open("ab")
        self._file.truncate(length)  # rows of steps after the checkpoint are written again
        self._file.seek(length)
        self._timing = (folder / "timing.jsonl").open("a", encoding="utf-8")
        self._board = TensorBoard(folder / "tensorboard", done_steps)

    def write(self, event: str, **row: Any) -> None:
        """One row of `metrics.jsonl`, and of the TensorBoard events."""
        if self._file is None:
            return
        content = {"event": event, **{name: _json_able(value) for name, value in row.items()}}
        try:
            self._file.write(json.dumps(content).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"{self._file.name} cannot be written ({error.strerror}): make room, then go on with --resume"
            ) from error
        if self._board is not None:
            self._board.write(content)

    def time(self, **row: Any) -> None:
        """One row of `timing.jsonl`."""
        if self._timing is not None:
            self._timing.write(json.dumps(row) + "\n")
            self._timing.flush()

    def flushed_length(self) -> int:
        """The length of `metrics.jsonl` in bytes, once it is on the disk."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._file, self._timing, self._board):
            if file is not None:
                file.close()


def _json_able(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as plain numbers."""
    return {name: float(value) for name, value in metrics.items()}
