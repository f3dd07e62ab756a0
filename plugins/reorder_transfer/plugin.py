"""What this room promises: a command."""

from __future__ import annotations

from reorder_core import Command, hookimpl


@hookimpl
def commands() -> tuple[Command, ...]:
    return (
        Command(
            "transfer",
            "reorder_transfer.command:command",
            "Does an order learned for one task, model or data set help another?",
        ),
    )
