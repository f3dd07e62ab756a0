"""Ctrl-C once saves and stops, twice stops at once; SIGTERM (a cluster's end of time) likewise."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, saved itself, and stopped (exit code 130, as after any Ctrl-C)."""


class StopRequest:
    """`requested` is True once SIGINT or SIGTERM came; the same signal a second time ends the process at once.

    notify: told once, in the handler, so that the reader knows that the first signal was heard.
    """

    def __init__(self, notify: Callable[[], None] = lambda: None) -> None:
        self.requested = False
        self._notify = notify
        self._heard: Counter[int] = Counter()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard[number] += 1
        if self._heard[number] > 1:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = True
            self._notify()
