"""The control of this room: the same run without it."""

from __future__ import annotations

from reorder_core import Context, Control


def nothing_between(settings: None, context: Context) -> Control:
    """The recipe without `backbone.between`: what reordering on the way added, its exit's loss included."""
    return Control("nothing_between", overrides={"backbone.between": None})
