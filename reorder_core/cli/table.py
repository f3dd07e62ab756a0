"""Rows for a person, a script or a program: an aligned table, tab-separated lines, JSON. Needs no rich.

A row is a mapping from column to value. A value that a table has no place for (a long reason) stands under its row.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

Row = Mapping[str, Any]
_COLOURS = {"ok": "green", "broken": "red", "conflict": "yellow", "off": "bright_black"}


def write(rows: Sequence[Row], columns: Sequence[str], *, as_json: bool, plain: bool, stretch: str, under: str) -> None:
    """Write rows to stdout.

    as_json: the rows as they are. plain: `columns` and then `under`, tab-separated, never cut, no header.
    Otherwise a table of `columns`, in which `stretch` is cut to a terminal's width and `under` follows on a line.
    """
    if as_json:
        click.echo(json.dumps([dict(row) for row in rows], indent=2))
    elif plain:
        for row in rows:
            click.echo("\t".join(_cell(row[column]) for column in (*columns, under)))
    else:
        for line in _table(rows, columns, stretch, under):
            click.echo(line)


def _cell(value: Any) -> str:
    """One line without tabs; seconds as a script reads them."""
    text = f"{value:.6f}" if isinstance(value, float) else ", ".join(value) if isinstance(value, tuple) else str(value)
    return " ".join(text.split())


def _shown(value: Any) -> str:
    """The same for a person: seconds in milliseconds."""
    return f"{value * 1000:.1f} ms" if isinstance(value, float) else _cell(value)


def _table(rows: Sequence[Row], columns: Sequence[str], stretch: str, under: str) -> Iterable[str]:
    width = {column: max(len(column), *(len(_shown(row[column])) for row in rows)) if rows else 0 for column in columns}
    if sys.stdout.isatty():
        others = sum(width[column] + 2 for column in columns if column != stretch)
        width[stretch] = min(width[stretch], max(24, shutil.get_terminal_size().columns - others))
    if rows:
        heads = [column.replace("seconds", "load").ljust(width[column]) for column in columns]
        yield click.style("  ".join(heads).rstrip(), bold=True)
    for row in rows:
        cells = [_fit(_shown(row[column]), width[column]) for column in columns]
        line = [
            click.style(cell, fg=_COLOURS.get(str(row[column]))) if column == "state" else cell
            for column, cell in zip(columns, cells, strict=True)
        ]
        yield "  ".join(line).rstrip()
        if row[under]:
            yield click.style(f"    {row[under]}", fg=_COLOURS.get(str(row.get("state"))))


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
