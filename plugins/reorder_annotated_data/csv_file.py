"""What a CSV of paths and classes says, checked and numbered; read once in a process. Needs no torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path

from reorder_annotated_data.pipeline_settings import SplitName
from reorder_annotated_data.settings import MultilabelCsvSettings
from reorder_annotated_data.text_files import read_text, stamp
from reorder_core import UsageError
from reorder_core.errors import did_you_mean

_TRUTH = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True)
class CsvFile:
    """classes: their names. lines: for each image its line, its path as written and the numbers of its classes."""

    classes: tuple[str, ...]
    lines: tuple[tuple[int, str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Columns:
    """How the columns are read; with the file's stamp the key of the cache."""

    path: str
    labels: str | None
    separator: str


def csv_file(settings: MultilabelCsvSettings, split: SplitName) -> CsvFile:
    """The lines of a split; classes that the settings leave open are those of the training CSV.

    Raises `UsageError` for whatever is wrong: a missing column, a class that is none, another value than 0 and 1.
    """
    classes = None if settings.classes is None else tuple(settings.classes)
    if classes is None and split == "validation":
        classes = csv_file(settings, "train").classes
    path = settings.csv(split)
    columns = _Columns(settings.path_column, settings.labels_column, settings.separator)
    return _read(split, path, stamp(split, path), columns, classes)


@lru_cache(maxsize=4)
def _read(key: str, path: Path, _stamp: tuple[int, int], columns: _Columns, classes: tuple[str, ...] | None) -> CsvFile:
    rows = _rows(key, path)
    header = [name.strip() for name in (rows[0][1] if rows else [])]
    place = {name: header.index(name) for name in header}
    if columns.labels is None and classes is None:
        classes = tuple(name for name in header if name not in ("", columns.path))
    needed = [columns.path, *(classes or ())] if columns.labels is None else [columns.path, columns.labels]
    for name in needed:
        if name not in place:
            raise UsageError(
                f"{key}: {path} has no column '{name}'{did_you_mean(name, header)} (its columns: "
                f"{', '.join(header)[:80] or 'none'})"
            )
    if len(place) < len(header):
        raise UsageError(f"{key}: {path} has two columns of one name: rename one")
    found: list[tuple[int, str, list[str]]] = []
    for line, row in rows[1:]:
        if not row:
            continue
        where = f"{path}: line {line}"
        if len(row) != len(header):
            raise UsageError(f"{where}: has {len(row)} columns and the first line {len(header)}: correct the file")
        if not row[place[columns.path]].strip():
            raise UsageError(f"{where}: names no image in the column '{columns.path}': write its path")
        seen = (
            _listed(row[place[columns.labels]], columns.separator)
            if columns.labels is not None
            else _marked(row, place, classes or (), where)
        )
        found.append((line, row[place[columns.path]].strip(), seen))
    if not found:
        raise UsageError(f"{key}: {path} lists no image")
    known = tuple(sorted({name for *_, seen in found for name in seen})) if classes is None else classes
    if not known:
        raise UsageError(f"{key}: {path} names no class: is `labels_column` the right one?")
    return CsvFile(known, tuple(_numbered(path, known, *line) for line in found))


def _rows(key: str, path: Path) -> list[tuple[int, list[str]]]:
    """The rows of the file, and the line at which each ends."""
    reader = csv.reader(StringIO(read_text(key, path)))
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as problem:
        raise UsageError(f"{key}: {path} is no CSV ({problem}): replace it") from problem


def _listed(cell: str, separator: str) -> list[str]:
    """The labels in a cell, those that are empty left out."""
    return [name.strip() for name in cell.split(separator) if name.strip()]


def _marked(row: Sequence[str], place: dict[str, int], classes: tuple[str, ...], where: str) -> list[str]:
    """The classes whose columns say 1."""
    seen = []
    for name in classes:
        cell = row[place[name]].strip().lower()
        if cell not in _TRUTH:
            raise UsageError(
                f"{where}: the column '{name}' holds '{row[place[name]]:.20}' and not 0 or 1; correct it, or name the "
                f"columns of the classes in data.classes"
            )
        if _TRUTH[cell]:
            seen.append(name)
    return seen


def _numbered(
    path: Path, classes: tuple[str, ...], line: int, image: str, seen: list[str]
) -> tuple[int, str, tuple[int, ...]]:
    number = {name: place for place, name in enumerate(classes)}
    for name in seen:
        if name not in number:
            raise UsageError(
                f"{path}: line {line}: the label '{name}' is no class{did_you_mean(name, classes)}; correct it, or "
                f"name all classes in data.classes"
            )
    return line, image, tuple(number[name] for name in seen)
