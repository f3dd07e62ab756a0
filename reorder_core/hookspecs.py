"""The hooks: the table of contents of the plugin system.

A plugin is a module named by an entry point of the group `reorder`. It answers any of these hooks with plain data;
nothing that it names is imported before a recipe needs it.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from reorder_core.component import Command, Component, Kind

hookspec = pluggy.HookspecMarker("reorder")
hookimpl = pluggy.HookimplMarker("reorder")


@hookspec
def components() -> Iterable[Component]:  # type: ignore[empty-body]
    """The components that this plugin offers: orderings, backbones, policies, tasks, datasets, controls, …"""


@hookspec
def kinds() -> Iterable[Kind]:  # type: ignore[empty-body]
    """New kinds of component, for example `tokenizer`."""


@hookspec
def commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """New commands of the `reorder` program."""
