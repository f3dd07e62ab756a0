"""The settings of a component as a reader sees them: name, type, default, what it is."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from reorder_core.settings import ComponentRef, RefKind, Settings


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: type in words (`float > 0`, `causal | bidirectional`, `ordering`), default (None if required)."""

    name: str
    type: str
    default: Any
    required: bool
    description: str


def settings_of(chosen: type[Settings] | None) -> list[Setting]:
    """The settings of a class in the order in which they are written."""
    fields = chosen.model_fields.items() if chosen is not None else ()
    return [
        Setting(
            name=name,
            type=type_in_words(field.annotation, field.metadata),
            default=None if field.is_required() else _plain(field.get_default(call_default_factory=True)),
            required=field.is_required(),
            description=" ".join((field.description or "").split()),
        )
        for name, field in fields
    ]


def type_in_words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """`Annotated[int, Ge(1)]` -> `int >= 1`, `Literal["a", "b"]` -> `a | b`, `Ref["ordering"]` -> `ordering`."""
    metadata = list(metadata)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_in_words(inner[0], [*inner[1:], *metadata])
    for item in metadata:
        if isinstance(item, RefKind):
            return item.kind
    if origin is Literal:
        return " | ".join(str(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        words = " | ".join("null" if part is type(None) else type_in_words(part) for part in inner)
    elif origin is not None:
        parts = ", ".join("…" if part is ... else type_in_words(part) for part in inner)
        words = f"{getattr(origin, '__name__', str(origin))}[{parts}]"
    elif annotation is type(None):
        words = "null"
    else:
        words = getattr(annotation, "__name__", str(annotation))
    return f"{words}{_limits(metadata)}"


def _limits(metadata: Iterable[Any]) -> str:
    found = []
    for item in metadata:
        for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
            if getattr(item, attribute, None) is not None:
                found.append(f" {sign} {getattr(item, attribute)}")
        for attribute, word in (("min_length", "at least"), ("max_length", "at most")):
            if getattr(item, attribute, None) is not None:
                found.append(f" ({word} {getattr(item, attribute)})")
    return ",".join(found)


def _plain(value: Any) -> Any:
    """A default as JSON and YAML can write it."""
    if isinstance(value, ComponentRef):
        return {"name": value.name, **value.settings} if value.settings else value.name
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
