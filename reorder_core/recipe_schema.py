"""JSON Schema (draft 2020-12) of recipes: a component is chosen by its name, and its settings follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.errors import PydanticUserError

from reorder_core.catalogue import Catalogue, Entry
from reorder_core.errors import ReorderError
from reorder_core.recipe import KEYS, PARTS, SECTIONS
from reorder_core.recipe_sections import HeadSection
from reorder_core.settings import REF_KIND, Settings

Schema = dict[str, Any]
#: A control may be called otherwise than its component; it may also be an ordering.
_LABEL: Schema = {"as": {"type": "string", "description": "controls only: what this control is called in its run"}}
_LABEL_OF = {"control": _LABEL, "ordering": _LABEL}
_NEEDED = ("name", "data", "patch", "ordering", "backbone", "task", "training")


def recipe_schema(catalogue: Catalogue) -> Schema:
    """The schema of recipes that can be written with the plugins of this catalogue."""
    definitions: Schema = {}
    for kind in catalogue.kinds:
        definitions[kind] = _choice(kind, list(_usable(catalogue, kind)))
    head = _settings_schema(HeadSection)["properties"]
    properties: Schema = {}
    for key, summary in KEYS.items():
        if key in PARTS:
            properties[key] = {"$ref": f"#/$defs/{PARTS[key]}"}
        elif key in SECTIONS:
            properties[key] = _settings_schema(SECTIONS[key])
        elif key == "controls":
            properties[key] = {"type": ["array", "null"], "items": _control(definitions)}
        else:
            properties[key] = head[key]
        properties[key] = {"description": summary, **properties[key]}
    ordering = {"$ref": "#/$defs/ordering"}
    several = {"type": "array", "items": ordering, "minItems": 1, "title": "for a backbone that reads several at once"}
    properties["ordering"] = {"description": KEYS["ordering"], "anyOf": [ordering, several]}
    properties["policy"] = {"description": KEYS["policy"], "anyOf": [{"$ref": "#/$defs/policy"}, {"type": "null"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a recipe of reorder",
        "type": "object",
        "properties": properties,
        "required": list(_NEEDED),
        "additionalProperties": False,
        "$defs": definitions,
    }


def _usable(catalogue: Catalogue, kind: str) -> Iterator[tuple[Entry, type[Settings] | None]]:
    """Components that a recipe can name; those whose settings cannot be imported are left out."""
    for entry in catalogue.entries(kind):
        if entry.state == "ok":
            try:
                yield entry, catalogue.settings_class(entry)
            except ReorderError:
                continue


def _choice(kind: str, offered: list[tuple[Entry, type[Settings] | None]]) -> Schema:
    """A word, or a mapping whose `name` decides which settings it takes."""
    alone, cases = [], []
    for entry, model in offered:
        name = entry.component.name
        settings = {"properties": {}} if model is None else _settings_schema(model)
        if not settings.get("required"):
            alone.append(name)
        title = {"const": name, "description": entry.component.summary}
        whole = {
            **settings,
            "type": "object",
            "properties": {"name": title, **_LABEL_OF.get(kind, {}), **settings["properties"]},
            "required": ["name", *settings.get("required", ())],
            "additionalProperties": settings.get("additionalProperties", False),
        }
        cases.append({"if": {"properties": {"name": {"const": name}}, "required": ["name"]}, "then": whole})
    names = [entry.component.name for entry, _ in offered]
    mapping = {"type": "object", "properties": {"name": {"enum": names}}, "required": ["name"], "allOf": cases}
    return {"anyOf": [{"enum": alone, "title": f"a {kind} with its defaults"}, mapping]}


def _control(definitions: Schema) -> Schema:
    """A control, or an ordering that a run is trained with."""
    return {"anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in ("control", "ordering") if kind in definitions]}


def _settings_schema(model: type[Settings]) -> Schema:
    """The schema of a settings class; the models inside it are written out, its references point to their kind."""
    try:
        found = model.model_json_schema(mode="validation")
        nested = found.pop("$defs", {})
        schema: Schema = _written_out(found, nested)
    except (PydanticUserError, RecursionError):
        return {"properties": {}, "additionalProperties": True}  # types that JSON Schema cannot say: `check` does
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema


def _written_out(value: Any, nested: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_written_out(item, nested) for item in value]
    if not isinstance(value, dict):
        return value
    if REF_KIND in value:
        return _reference(value)
    target = str(value.get("$ref", "")).removeprefix("#/$defs/")
    if target in nested:
        value = {**nested[target], **{key: item for key, item in value.items() if key != "$ref"}}
    return {key: _written_out(item, nested) for key, item in value.items()}


def _reference(value: Schema) -> Schema:
    """A setting that names a component."""
    found: Schema = {"$ref": f"#/$defs/{value[REF_KIND]}"}
    found |= {key: value[key] for key in ("description",) if key in value}
    default = value.get("default")
    if isinstance(default, dict) and {"name", "settings"} <= set(default):
        found["default"] = {"name": default["name"], **default["settings"]} if default["settings"] else default["name"]
    return found
