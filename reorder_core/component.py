"""What a plugin answers with: plain data about its components, kinds and commands.

Nothing here is imported until it is needed: `target` and `settings` are import strings (`module:attribute`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Component:
    """A promise of one component, not yet an object.

    kind: `ordering`, `backbone`, `policy`, `task`, `dataset`, `control`, or a kind that a plugin added.
    name: what a recipe writes.
    target: import string of a callable `target(settings, context)` that builds the component.
    settings: import string of its settings class (a `reorder_core.Settings`), or None where it takes none.
    summary: one line, as `reorder list` shows it.
    paper: the source, as a reader would cite it.
    """

    kind: str
    name: str
    target: str
    summary: str
    settings: str | None = None
    paper: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of component.

    name: singular (`ordering`); plural: what `reorder list` takes (`orderings`).
    protocol: import string of its interface.
    contract: import string of the conformance check for a component of this kind.
    key: the key of a recipe that names a component of this kind: the core's kinds only. None where other components
        refer to it in their settings (`Ref["tokenizer"]`), as they do to all kinds that plugins add.
    template: import string of a function `template(name) -> dict[path, text]` for `reorder new`, or None.
    """

    name: str
    plural: str
    protocol: str
    summary: str
    contract: str | None = None
    key: str | None = None
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the `reorder` program: `target` is the import string of a click command."""

    name: str
    target: str
    help: str
