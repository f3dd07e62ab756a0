"""The bar of a command that measures: what is done, how much of it, and how long it still takes."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def bars(console: Console, unit: str = "", *, disable: bool = False) -> Progress:
    """A display for a `with` statement, to which tasks are added; gone from the screen at its end.

    unit: what is counted, behind the count ("images", say). disable: show nothing, as other processes than the first.
    """
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [TextColumn(unit)] if unit else []
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=disable)
