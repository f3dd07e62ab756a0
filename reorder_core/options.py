"""Options that several commands share."""

from __future__ import annotations

import re

import click

from reorder_core.errors import UsageError


def image_size(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """The callback of an option in pixels, `224` or `224x320`: (height, width)."""
    if value is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})?", value):
        raise UsageError(f"{parameter.opts[-1]} {value}: write pixels, as 224 or 224x320 (height x width)")
    height, _x, width = value.partition("x")
    return int(height), int(width or height)
