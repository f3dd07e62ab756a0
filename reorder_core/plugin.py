"""The core's own kinds and commands come in through the same door as anybody's."""

from __future__ import annotations

from reorder_core.component import Command, Kind
from reorder_core.hookspecs import hookimpl


def _kind(name: str, plural: str, protocol: str, summary: str, key: str | None, template: bool = True) -> Kind:
    return Kind(
        name=name,
        plural=plural,
        protocol=f"reorder_core.interfaces.{name}:{protocol}",
        summary=summary,
        contract=f"reorder_core.conformance:check_{name}",
        key=key,
        template=f"reorder_core.cli.templates:{name}" if template else None,
    )


@hookimpl
def kinds() -> tuple[Kind, ...]:
    return (
        _kind(
            "ordering",
            "orderings",
            "Ordering",
            "turns a grid into a permutation without learning",
            "ordering",
        ),
        _kind("backbone", "backbones", "Backbone", "reads a sequence of patches in a given order", "backbone"),
        _kind(
            "mixer", "mixers", "Mixer", "moves information along the sequence, inside the blocks of a backbone", None
        ),
        _kind("between", "betweens", "Between", "reorders the patches between the blocks of a backbone", None),
        _kind("policy", "policies", "Policy", "holds a distribution over orders and learns it", "policy"),
        _kind("task", "tasks", "Task", "loss of each image, prediction and metrics", "task"),
        _kind("dataset", "datasets", "Dataset", "train and validation images with targets", "data"),
        _kind("control", "controls", "Control", "the same run with another order", None, template=False),
    )


@hookimpl
def commands() -> tuple[Command, ...]:
    return (
        Command("list", "reorder_core.cli.list:command", "What is installed: plugins, components, recipes."),
        Command("show", "reorder_core.cli.show:command", "One component: what it does, its settings, its drawing."),
        Command("check", "reorder_core.cli.check:command", "Check recipes without running them."),
        Command("run", "reorder_core.cli.run:command", "Run a recipe, with its controls."),
        Command("export", "reorder_core.cli.export:command", "A model with its order baked in, as a file."),
        Command("new", "reorder_core.cli.new:command", "Write a new plugin distribution, with tests that pass."),
        Command("schema", "reorder_core.cli.schema:command", "JSON Schema of recipes, for editors."),
    )
