"""The text of a recipe and its overrides, merged, with the origin of every key: `path:line` or `-o key=value`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reorder_core.errors import UsageError, did_you_mean
from reorder_core.recipe_yaml import KeyPath, read_yaml, write_value


class RecipeError(UsageError):
    """Everything that is wrong with a recipe: `str()` has one line an error, `lines` has them one by one."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong: where, and one sentence of advice."""

    path: KeyPath
    message: str


@dataclass
class Source:
    """What was written, and where.

    origin: of each key path, (place among the errors, label). text: scalars as they were written, where YAML made
    something else than text of them. early: lines for what could not even be read, (place, line). refused: keys of
    which such a line says enough.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    origin: dict[KeyPath, tuple[int, str]] = field(default_factory=dict)
    text: dict[KeyPath, str] = field(default_factory=dict)
    early: list[tuple[int, str]] = field(default_factory=list)
    refused: set[KeyPath] = field(default_factory=set)

    def lines(self, complaints: Iterable[Complaint] = ()) -> list[str]:
        """One line an error, in the order of the file, overrides last; each line once."""
        found = list(self.early)
        for complaint in complaints:
            if complaint.path in self.refused:
                continue
            place, label = self.where(complaint.path)
            found.append(
                (place, ": ".join(part for part in (label, dotted(complaint.path), complaint.message) if part))
            )
        return list(dict.fromkeys(line for _, line in sorted(found, key=lambda item: item[0])))

    def where(self, path: KeyPath) -> tuple[int, str]:
        """The origin of a key, or of the nearest key above it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origin:
                return self.origin[path[:end]]
        return 0, self.name

    def replace(self, path: KeyPath, value: Any, label: str, text: Mapping[KeyPath, str]) -> None:
        """Put an override's value in; its keys come from the override from now on."""
        self.refused.discard(path)
        for table in (self.origin, self.text):
            for below in [each for each in table if each[: len(path)] == path]:
                del table[below]
        place = 1 + max((place for place, _ in self.origin.values()), default=0)
        self.origin[path] = (place + 10**9 if place < 10**9 else place, label)
        self.text.update({(*path, *inner): written for inner, written in text.items()})
        parent = self._parent(path)
        parent[path[-1]] = value

    def _parent(self, path: KeyPath) -> Any:
        """What holds the last key; sections that were left out are made, a component that is a word is written out."""
        here: Any = self.data
        for depth, key in enumerate(path[:-1]):
            below = here[key] if _holds(here, key) else None
            if isinstance(below, str) and is_component(path[: depth + 1]):
                below = {"name": below}
            elif below is None:
                below = {}
            elif not isinstance(below, (dict, list)):
                raise UsageError(f"'{dotted(path[: depth + 1])}' holds no keys, but {write_value(below)}")
            here[key] = below
            here = below
        if isinstance(here, list) and not _holds(here, path[-1]):
            raise UsageError(f"'{dotted(path[:-1])}' is a list of {len(here)}: there is no item {path[-1]}")
        return here


def dotted(path: KeyPath) -> str:
    """`policy.curves.1.name`"""
    return ".".join(str(part) for part in path)


def is_component(path: KeyPath) -> bool:
    """Whether a key path lies among the parts of a recipe that are components."""
    return bool(path) and path[0] not in ("name", "seed", "patch", "positions", "training")


def read_source(path: Path) -> Source:
    """Read a recipe's file. Raises `RecipeError` where there is nothing to go on with."""
    name = str(path)
    document = read_yaml(_text(path))
    labels = {key: (line, f"{name}:{line}") for key, line in document.line.items()}
    source = Source(name, origin=labels, text=document.text, refused=document.refused)
    for line, key, message in document.problems:
        source.early.append((line, ": ".join(part for part in (f"{name}:{line}", dotted(key), message) if part)))
    if isinstance(document.value, dict):
        source.data = document.value
        return source
    if not source.early:
        what = "is empty" if document.value is None else "holds no `key: value` lines"
        source.early.append((0, f"{name}: this recipe {what}: start from one in recipes/, or see docs/recipes.md"))
    raise RecipeError(source.lines())


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        folder = path.parent
        known = sorted(str(each) for each in folder.glob("*.y*ml")) if folder.is_dir() else []
        raise RecipeError([f"{path}: there is no such file{did_you_mean(str(path), known)}"]) from None
    except IsADirectoryError:
        raise RecipeError([f"{path}: this is a folder: name the recipes in it, as {path}/*.yaml"]) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise RecipeError([f"{path}:{line}: this is not UTF-8 text: save the file as UTF-8"]) from None
    except OSError as error:
        raise RecipeError([f"{path}: this file cannot be read: {error.strerror or error}"]) from None


def apply_overrides(source: Source, overrides: Sequence[str] | Mapping[str, Any]) -> None:
    """Put overrides in, one after the other: `key=value` as `-o` takes them, or a mapping of key to value.

    A component's `name` changed resets its settings. What is wrong with an override lands in `source.early`.
    """
    items = overrides.items() if isinstance(overrides, Mapping) else [(text, None) for text in overrides]
    for number, (written, value) in enumerate(items):
        text: Mapping[KeyPath, str] = {}
        label = f"-o {written}"
        key = written
        if isinstance(overrides, Mapping):
            label = f"-o {key}={write_value(value)}"
        else:
            key, equals, right = written.partition("=")
            document = read_yaml(right)
            value, text = document.value, document.text
            wrong = "write it as key=value" if not equals else document.problems[0][2] if document.problems else ""
            if wrong:
                source.early.append((2 * 10**9 + number, f"{label}: {wrong}"))
                continue
        try:
            _override(source, key.strip(), value, label, text)
        except UsageError as error:
            source.early.append((2 * 10**9 + number, f"{label}: {error}"))


def _override(source: Source, key: str, value: Any, label: str, text: Mapping[KeyPath, str]) -> None:
    parts = key.split(".")
    if not all(parts):
        raise UsageError(f"'{key}' is no key: write it as policy.temperature=0.5")
    path = _numbered(source.data, parts)
    if path[-1] == "name" and is_component(path):
        before = _at(source.data, path[:-1])
        if (before.get("name") if isinstance(before, dict) else before) == value:
            return
        path, value, text = path[:-1], {"name": value}, {("name",): text[()]} if () in text else {}
    source.replace(path, value, label, text)


def _numbered(data: Any, parts: Sequence[str]) -> KeyPath:
    """The key path, with numbers where the data has lists."""
    path: list[str | int] = []
    here: Any = data
    for part in parts:
        key: str | int = int(part) if isinstance(here, list) and part.isdecimal() else part
        here = here[key] if _holds(here, key) else None
        path.append(key)
    return tuple(path)


def _at(data: Any, path: KeyPath) -> Any:
    for key in path:
        data = data[key] if _holds(data, key) else None
    return data


def _holds(here: Any, key: str | int) -> bool:
    if isinstance(here, list):
        return isinstance(key, int) and key < len(here)
    return isinstance(here, dict) and key in here
