"""What this room promises: a command."""

from __future__ import annotations

from reorder_core import Command, hookimpl


@hookimpl
def commands() -> tuple[Command, ...]:
    return ()
