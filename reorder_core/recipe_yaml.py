"""YAML with line numbers: plain values only, every key once, and no guessing.

PyYAML reads YAML 1.1, where `no` is False, `1e-4` is text, `010` is 8 and the last of two equal keys wins. Recipes are
read by the rules of YAML 1.2's core schema instead; tags that ask for code, repeated keys and aliases are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str")}
_RESOLVERS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN"),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes; values are made here, not by PyYAML's constructors."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  (of the class, as PyYAML has it)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="a recipe has no aliases: write it out", problem_mark=mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as the same value."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  (of the class, as PyYAML has it)


for _name, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), [*_first])
        if _name == "null":
            _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile("^$"), [""])


@dataclass
class Document:
    """What a text of YAML says.

    value: plain Python values. line: of each key (or list item), from 1. text: scalars as they were written, where
    YAML made something else than text of them. problems: (line, key path, advice). refused: keys without a value,
    because its tag was refused.
    """

    value: Any = None
    line: dict[KeyPath, int] = field(default_factory=dict)
    text: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[tuple[int, KeyPath, str]] = field(default_factory=list)
    refused: set[KeyPath] = field(default_factory=set)


def read_yaml(text: str) -> Document:
    """Read one document; whatever is wrong with it stands in `problems`."""
    document = Document()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        document.value = None if node is None else _value(node, (), document)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        context = getattr(error, "context", None)
        where = f" ({context})" if context else ""
        document.problems.append((mark.line + 1 if mark else 1, (), f"this is not valid YAML: {problem}{where}"))
    except RecursionError:
        document.problems.append((1, (), "this is nested too deeply to be a recipe"))
    return document


def write_yaml(value: Mapping[str, Any]) -> str:
    """The YAML of plain values, keys in their order; `read_yaml` gives the same values back."""
    text = yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, width=120)
    return str(text)


def write_value(value: Any) -> str:
    """One value on one line, as one would type it after `-o key=`."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6)
    return str(text).removesuffix("\n").removesuffix("\n...")


def _value(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        if node.tag != f"{_TAG}seq":
            return _refuse(node, path, document)
        for number, child in enumerate(node.value):
            document.line[*path, number] = child.start_mark.line + 1
        return [_value(child, (*path, number), document) for number, child in enumerate(node.value)]
    return _scalar(node, path, document)


def _mapping(node: yaml.MappingNode, path: KeyPath, document: Document) -> Any:
    if node.tag != f"{_TAG}map":
        return _refuse(node, path, document)
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _SCALARS:
            document.problems.append((line, path, "a key must be a plain word"))
            continue
        key = str(key_node.value)  # as written: `no` and `1` are words where a key stands
        here = (*path, key)
        if key in found:
            first = document.line[here]
            document.problems.append((line, here, f"this key stands here twice (first in line {first}): keep one"))
            continue
        document.line[here] = line
        found[key] = _value(value_node, here, document)
    return found


def _refuse(node: yaml.Node, path: KeyPath, document: Document) -> None:
    tag = str(node.tag).replace(_TAG, "!!")
    why = "asks for code to be run, which a recipe never does" if "python" in tag else "is not for recipes"
    line = node.start_mark.line + 1
    document.problems.append((line, path, f"the tag '{tag}' {why}: write a plain value"))
    document.refused.add(path)


def _scalar(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    if node.tag not in _SCALARS:
        return _refuse(node, path, document)
    text = str(node.value)
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    document.text[path] = text
    try:
        return _convert(kind, text)
    except ValueError:
        return text


def _convert(kind: str, text: str) -> Any:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, 16) if text.startswith("0x") else int(text)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
