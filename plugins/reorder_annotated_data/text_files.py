"""Reading JSON and text: whatever is wrong with a file is one sentence that names it. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reorder_core import UsageError
from reorder_core.errors import one_line


def stamp(key: str, path: Path) -> tuple[int, int]:
    """When the file was changed and how long it is, for caches. Raises `UsageError` naming the setting `key`."""
    if not path.is_file():
        raise UsageError(f"{key}: there is no file {path}; set data.{key} and data.root to where it is")
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def read_text(key: str, path: Path) -> str:
    """All of the file. Raises `UsageError` where it is missing or no text."""
    stamp(key, path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{key}: {path} cannot be read as text ({one_line(problem)}): replace it") from problem


def lines_of(key: str, path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not empty. Raises `UsageError` where there are none."""
    lines = tuple(line.strip() for line in read_text(key, path).splitlines() if line.strip())
    if not lines:
        raise UsageError(f"{key}: {path} is empty; write one name a line")
    return lines


def read_json(key: str, path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises `UsageError` where it is missing, no JSON or no object."""
    try:
        held = json.loads(read_text(key, path))
    except ValueError as problem:
        raise UsageError(f"{key}: {path} is not JSON ({one_line(problem)}): replace it") from problem
    if not isinstance(held, dict):
        raise UsageError(f"{key}: {path} holds a {type(held).__name__} and no object with lists: is it the right file?")
    return held


def records(held: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """The list of objects `name` in a JSON file. Raises `UsageError` where it is missing or something else."""
    found = held.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UsageError(f"{path}: has no list '{name}' of objects: is it the right file?")
    return found


def value(record: dict[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`record[name]`. Raises `UsageError` beginning with `where` where it is missing or of another type."""
    found = record.get(name)
    if not isinstance(found, kind) or isinstance(found, bool):
        told = "is missing" if name not in record else f"is {found!r:.40}"
        raise UsageError(f"{where}: '{name}' {told}: correct the file")
    return found
