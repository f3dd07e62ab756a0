"""Every room has the same floor plan, and comes in by its entry point; light files stay light."""

from __future__ import annotations

import ast
import re
import tomllib
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from reorder_core.catalogue import Catalogue

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_has_the_floor_plan(room):
    for name in ("__init__.py", "plugin.py", "README.md"):
        assert (room / name).is_file(), f"{room.name} has no {name}"
    assert (room / "settings.py").is_file() or not _offers_components(room), f"{room.name} has no settings.py"
    tree = ast.parse((room / "__init__.py").read_text())
    assert ast.get_docstring(tree), f"{room.name}/__init__.py says in one sentence what the room is"
    assert len(tree.body) == 1, f"{room.name}/__init__.py holds its sentence and nothing else"
    assert len((room / "README.md").read_text()) > 200
    for path in room.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} says in its first line what it is about"


def _offers_components(room):
    """A room that offers commands only takes its options on the command line, and has no settings."""
    return any(record.components for record in Catalogue.load().plugins if record.module == f"{room.name}.plugin")


def test_every_room_has_its_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = set(project["entry-points"]["reorder"].values())
    assert promised == {"reorder_core.plugin", *(f"{room.name}.plugin" for room in ROOMS)}


def test_every_room_is_read_and_offers_something():
    """Rooms of the project only: whatever else is installed is its own affair."""
    own = [record for record in Catalogue.load().plugins if record.distribution == "reorder"]
    assert [(record.name, record.reason) for record in own if record.state != "ok"] == []
    assert [record.name for record in own if not (record.components or record.kinds or record.commands)] == []


@pytest.mark.parametrize(
    "entry", [entry for entry in Catalogue.load().entries() if entry.distribution == "reorder"], ids=str
)
def test_a_promise_names_files_that_exist(entry):
    assert entry.state == "ok", entry.reason
    assert entry.component.summary
    assert "\n" not in entry.component.summary
    for path in (entry.component.target, entry.component.settings):
        assert path is None or find_spec(path.split(":")[0]) is not None


@pytest.mark.parametrize("path", sorted((ROOT / "reorder_core").rglob("*.py")), ids=lambda path: path.name)
def test_files_of_the_core_are_about_one_noun(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} says in its first line what it is about"
    assert text.count("\n") <= 300, f"{path} has {text.count(chr(10))} lines: look for the second idea in it"


UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def test_nothing_is_marked_as_unfinished():
    folders = ("reorder_core", "plugins", "docs", "recipes", "benchmarks")
    texts = [path for name in folders for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".md", ".yaml")]
    assert [str(path) for path in texts if UNFINISHED.search(path.read_text())] == []


def test_warnings_are_errors_in_tests():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["filterwarnings"] == ["error"]
    with pytest.raises(DeprecationWarning):
        warnings.warn("heard", DeprecationWarning, stacklevel=1)
