"""Settings of components and sections, read from plain values: pydantic's complaints as advice, with key paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from reorder_core.errors import ReorderError, did_you_mean
from reorder_core.recipe_source import Complaint
from reorder_core.recipe_yaml import KeyPath, write_value
from reorder_core.settings import ComponentRef, Settings

S = TypeVar("S", bound=Settings)
_TEXT = {"string_type", "string_sub_type", "literal_error", "value_error", "path_type", "is_instance_of"}


def read_settings(
    model: type[S], data: Mapping[str, Any], at: KeyPath, text: Mapping[KeyPath, str]
) -> tuple[S | None, list[Complaint]]:
    """The settings that `data`, standing at key path `at`, gives; or what is wrong with them.

    text: scalars as they were written. Where a setting wants text and YAML made something else of it (`no`, `010`),
    it is read as it was written.
    """
    values = deepcopy(dict(data))
    try:
        try:
            found = model.model_validate(values)
        except ValidationError as error:
            if not _as_written(values, error, at, text):
                raise
            found = model.model_validate(values)
    except ValidationError as error:
        return None, _complaints(model, values, error, at)
    except ReorderError as error:
        return None, [Complaint(at, str(error))]
    except Exception as error:
        return None, [Complaint(at, f"these settings cannot be read: {type(error).__name__}: {error}")]
    wrong = [Complaint((*at, *path), message) for path, message in _true_as_number(values, found)]
    return (None, wrong) if wrong else (found, [])


def _as_written(values: dict[str, Any], error: ValidationError, at: KeyPath, text: Mapping[KeyPath, str]) -> bool:
    """Put text in where text was wanted; says whether anything changed."""
    changed = False
    for problem in error.errors(include_url=False, include_context=False):
        path = _key_path(values, problem["loc"])
        if problem["type"] in _TEXT and path and (*at, *path) in text and not isinstance(problem["input"], str):
            parent: Any = values
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = text[*at, *path]
            changed = True
    return changed


def _key_path(values: Any, loc: Sequence[int | str], missing: bool = False) -> KeyPath:
    """Pydantic's location without the names of unions' branches."""
    path: list[str | int] = []
    for number, part in enumerate(loc):
        inside = (isinstance(values, Mapping) and part in values) or (
            isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        )
        if inside:
            values = values[part]
            path.append(part)
        elif missing and number == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _complaints(model: type[BaseModel], values: Any, error: ValidationError, at: KeyPath) -> list[Complaint]:
    """One complaint a key: the branches of a union are joined by `or`."""
    messages: dict[KeyPath, list[str]] = {}
    for problem in error.errors(include_url=False):
        path = _key_path(values, problem["loc"], missing=problem["type"] == "missing")
        advice = _advice(model, path, problem)
        known = messages.setdefault(path, [])
        if advice not in known:
            known.append(advice)
    return [Complaint((*at, *path), _joined(found)) for path, found in messages.items()]


def _joined(messages: list[str]) -> str:
    ends = {message.rpartition(", not ")[2] for message in messages}
    if len(messages) > 1 and len(ends) == 1 and all(", not " in message for message in messages):
        first, *others = (message.rpartition(", not ")[0] for message in messages)
        return " or ".join([first, *(each.removeprefix("must be ") for each in others)]) + f", not {ends.pop()}"
    return " or ".join(messages)


def _advice(model: type[BaseModel], path: KeyPath, problem: Any) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    given = problem["input"]
    if kind == "missing":
        return "this is needed, and missing: add it"
    if kind == "extra_forbidden":
        return unknown_key(str(path[-1]), list(_fields(model, path[:-1], problem["loc"])), "setting")
    if kind == "value_error":
        return str(context["error"])
    wanted = _wanted(kind, context)
    if wanted is None:
        message = str(problem["msg"])
        wanted = message[:1].lower() + message[1:].replace("Input should", "should")
    near = ""
    if kind == "literal_error" and isinstance(given, str):
        near = did_you_mean(given, context["expected"].replace(" or ", ", ").replace("'", "").split(", "))
    return f"{wanted}, not {_shown(given)}{near}"


def _wanted(kind: str, context: Mapping[str, Any]) -> str | None:
    """What a value must be, for pydantic's kinds of error that a recipe meets."""
    for prefix, wanted in (
        ("int_", "must be a whole number"),
        ("float_", "must be a number"),
        ("bool_", "must be true or false"),
        ("string_type", "must be text"),
        ("finite_number", "must be a finite number"),
        ("list_type", "must be a list, as [a, b]"),
        ("tuple_type", "must be a list, as [a, b]"),
        ("model_", "must be a mapping, as {key: value}"),
        ("dict_type", "must be a mapping, as {key: value}"),
        ("none_required", "must be null"),
    ):
        if kind.startswith(prefix):
            return wanted
    limits = {
        "greater_than": ("must be more than", "gt"),
        "greater_than_equal": ("must be at least", "ge"),
        "less_than": ("must be less than", "lt"),
        "less_than_equal": ("must be at most", "le"),
    }
    if kind in limits:
        words, key = limits[kind]
        limit = context[key]
        return f"{words} {limit:g}" if isinstance(limit, float) else f"{words} {limit}"
    if kind == "literal_error":
        return f"must be {context['expected'].replace(chr(39), '')}"
    if kind == "string_pattern_mismatch":
        return f"must be of the form {context['pattern']}"
    return None


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}'"
    try:
        shown = write_value(plain(value))
    except Exception:
        shown = repr(value)
    return shown if len(shown) < 80 else f"{shown[:76]} …"


def unknown_key(key: str, known: Sequence[str], what: str) -> str:
    """`no such setting; did you mean 'temperature'?`, or the keys that there are."""
    return f"no such {what}" + (did_you_mean(key, known) or (f": there is {', '.join(known)}" if known else ""))


def _fields(model: type[BaseModel], path: KeyPath, loc: Sequence[int | str]) -> Sequence[str]:
    """The names of the settings at a path inside a model, through nested models.

    loc: pydantic's location, which also names the branch of a union: the value by which that is told apart.
    """
    for key in path:
        annotation = model.model_fields[key].annotation if isinstance(key, str) and key in model.model_fields else None
        nested = list(_models_in(annotation))
        if not nested:
            return ()
        model = next((each for each in nested if _tags(each) & {*loc}), nested[0])
    return list(model.model_fields)


def _tags(model: type[BaseModel]) -> set[Any]:
    """The values of the settings that can have one value only, as the `kind` of a branch of a union."""
    choices = (get_args(field.annotation) for field in model.model_fields.values())
    return {values[0] for values in choices if len(values) == 1 and isinstance(values[0], str)}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type: itself, or in an Optional, a union, a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _models_in(inner)


def _true_as_number(data: Any, value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Pydantic takes true for 1; a recipe does not."""
    if isinstance(data, bool) and isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, f"must be a number, not {write_value(data)}"
    elif isinstance(data, Mapping) and isinstance(value, BaseModel):
        for key, inner in data.items():
            yield from _true_as_number(inner, getattr(value, key, None), (*path, key))
    elif isinstance(data, (list, tuple)) and isinstance(value, (list, tuple)):
        for number, (inner, read) in enumerate(zip(data, value, strict=False)):
            yield from _true_as_number(inner, read, (*path, number))


def references(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, ComponentRef]]:
    """Every component that settings refer to, wherever it stands in them, with its key path."""
    if isinstance(value, ComponentRef):
        yield path, value
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from references(getattr(value, key), (*path, key))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from references(inner, (*path, key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from references(inner, (*path, number))


def plain(value: Any, refs: Mapping[KeyPath, Any] | None = None, path: KeyPath = ()) -> Any:
    """Settings as plain YAML values, complete with defaults; `refs` replaces the component references by path."""
    if isinstance(value, ComponentRef):
        known = (refs or {}).get(path)
        return known if known is not None else {"name": value.name, **plain(dict(value.settings))}
    if isinstance(value, BaseModel):
        return {key: plain(getattr(value, key), refs, (*path, key)) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): plain(inner, refs, (*path, key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner, refs, (*path, number)) for number, inner in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, PurePath):
        return str(value)
    return value
