"""What this room promises: a command."""

from __future__ import annotations

from reorder_core import Command, hookimpl


@hookimpl
def commands() -> tuple[Command, ...]:
    return (
        Command(
            "bench",
            "reorder_policy_bench.command:command",
            "How soon each policy finds an order that is known: `bench policies`.",
        ),
    )
