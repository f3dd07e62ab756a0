"""What this room promises: a command."""

from __future__ import annotations

from reorder_core import Command, hookimpl


@hookimpl
def commands() -> tuple[Command, ...]:
    return (
        Command(
            "sensitivity",
            "reorder_sensitivity.command:command",
            "How much a model reacts to the order, and what it forgets.",
        ),
    )
