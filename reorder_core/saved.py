"""Files that are whole or not there: written aside, flushed, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reorder_core.errors import RunError


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Where to write what is to be `path`: renamed to it at the end, and removed where anything went wrong before.

    A reader never meets half a file, and what stood at `path` stays until the new file is whole. The name keeps the
    suffix of `path`, as libraries choose a format by it. Raises `OSError` as any writing does.
    """
    aside = path.with_name(f"part-{path.name}")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """The folder that a command writes its results into, made where it is missing.

    Raises `RunError` where it, or what is written in it, cannot be written: the work was done by then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write JSON by `written_aside`."""
    text = json.dumps(content, indent=indent) + "\n"
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
