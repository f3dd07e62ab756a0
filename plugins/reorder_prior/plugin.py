"""What this room promises: a command, and an ordering that rests on the same measure."""

from __future__ import annotations

from reorder_core import Command, Component, hookimpl

_PAPER = "Kutscher et al., REOrdering Patches Improves Vision Models, NeurIPS 2025, arXiv 2505.23751 (its first stage)"


@hookimpl
def commands() -> tuple[Command, ...]:
    return (
        Command("prior", "reorder_prior.command:command", "Which order compresses, and what else tells orders apart."),
    )


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="ordering",
            name="compressibility",
            target="reorder_prior.compressibility:Compressibility",
            settings="reorder_prior.settings:CompressibilitySettings",
            summary="of several orderings the one in which the data compresses best (or worst)",
            paper=_PAPER,
        ),
    )
