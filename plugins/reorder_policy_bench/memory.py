"""How much memory a piece of work took at its highest, where the system says so (Linux)."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """mebibytes: the highest resident memory of the process above what it had at the start; None where unknown."""

    mebibytes: float | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the block. Memory that earlier work gave back is handed to the system first, so that it counts anew."""
    found = Peak()
    start = _reset()
    try:
        yield found
    finally:
        highest = _status("VmHWM")
        if start is not None and highest is not None:
            found.mebibytes = max(0.0, highest - start)


def _reset() -> float | None:
    """Set the high-water mark to what is resident now; returns that in MiB, or None where it cannot be set."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _status(key: str) -> float | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) / 1024
