"""Each hook has a docstring, an entry in docs/hooks.md and a test called `test_hook_NAME`."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from reorder_core import hookspecs

ROOT = Path(__file__).parents[2]
HOOKS = [
    name for name, value in vars(hookspecs).items() if inspect.isfunction(value) and hasattr(value, "reorder_spec")
]


def test_all_hooks_are_counted():
    assert sorted(HOOKS) == ["commands", "components", "kinds"]


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_is_documented_and_tested(hook):
    assert inspect.getdoc(getattr(hookspecs, hook))
    page = (ROOT / "docs" / "hooks.md").read_text()
    section = re.search(rf"^## `{hook}\(\)`\n(.+?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert f"def {hook}():" in section[1]
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert f"def test_hook_{hook}(" in tests


def test_no_documented_hook_is_missing():
    page = (ROOT / "docs" / "hooks.md").read_text()
    assert sorted(re.findall(r"^## `(\w+)\(\)`", page, re.MULTILINE)) == sorted(HOOKS)


def test_hook_components(guests, source_of):
    guests.add("one", source_of("task:guessing:guest_one:Task"))
    done = guests.run("list", "tasks", "--plain")
    row = next(line.split("\t") for line in done.stdout.splitlines() if "guessing" in line)
    assert row[:6] == ["task", "guessing", "a guest", "reorder-one", "1.0", "ok"]


def test_hook_kinds(guests, source_of):
    kinds = """
@hookimpl
def kinds():
    return [Kind("vocabulary", "vocabularies", "guest_words:Vocabulary", "turns text into numbers")]
"""
    guests.add("words", source_of("vocabulary:letters:guest_words:Letters", extra=kinds))
    listed = json.loads(guests.run("list", "vocabularies", "--json").stdout)
    assert [(row["kind"], row["name"], row["state"]) for row in listed] == [("vocabulary", "letters", "ok")]
    assert guests.run("show", "vocabularies", "letters").returncode == 0
    refused = guests.run("new", "vocabulary", "mine")
    assert refused.returncode == 2
    assert "no template" in refused.stderr


KEYED = """
@hookimpl
def kinds():
    return [Kind("vocabulary", "vocabularies", "guest_keyed:Vocabulary", "turns text into numbers", key="words")]
"""


def test_a_kind_that_wants_a_key_of_recipes_is_told_where_to_go(guests, source_of):
    guests.add("keyed", source_of(extra=KEYED))
    rows = json.loads(guests.run("list", "plugins", "--json").stdout)
    (row,) = [row for row in rows if row["name"] == "keyed"]
    assert row["state"] == "broken"
    assert row["reason"].endswith(
        'whose keys are fixed: leave key out, and name its components in settings, as Ref["vocabulary"]'
    )


WORDS = """
from reorder_core import Ref, Settings
class Chosen(Settings):
    words: Ref["vocabulary"] = "letters"
"""


def test_a_recipe_names_a_new_kind_inside_settings(guests, source_of):
    kinds = KEYED.replace(', key="words"', "")
    offered = ("vocabulary:letters:guest_words:L", "ordering:spoken:guest_words:S:words_settings:Chosen")
    guests.add("words", source_of(*offered, extra=kinds), words_settings=WORDS)
    asked = ("check", str(ROOT / "recipes" / "smoke.yaml"), "-o")
    assert guests.run(*asked, "ordering={name: spoken, words: letters}").returncode == 0
    refused = guests.run(*asked, "ordering={name: spoken, words: leters}")
    assert refused.returncode == 2
    assert "there is no vocabulary called 'leters'; did you mean 'letters'?" in refused.stderr


def test_hook_commands(guests, source_of):
    source = """
import click
@hookimpl
def commands():
    return [Command("greet", "greeting:greet", "Say hello."), Command("gone", "nowhere:gone", "Is not there.")]
"""
    guests.add(
        "polite",
        source_of(extra=source),
        greeting="import click\n@click.command()\ndef greet():\n    click.echo('hello')\n",
    )
    assert guests.run("greet").stdout == "hello\n"
    helped = guests.run("--help")
    assert "Say hello." in helped.stdout
    assert "Is not there." in helped.stdout
    gone = guests.run("gone", "--anything")
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
    assert "polite (reorder-polite)" in gone.stderr


def test_a_command_cannot_be_replaced(guests, source_of):
    source = "@hookimpl\ndef commands():\n    return [Command('list', 'mine:list', 'Mine.')]\n"
    guests.add("pushy", source_of(extra=source))
    done = guests.run("list", "plugins")
    assert done.returncode == 0
    assert "offers the command 'list', which reorder (core) offers already" in done.stdout


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("None", "must answer with a tuple of Component"),
        ("['row']", "must answer with Components, not 'row'"),
        ("[Component('ordering', 'two words', 'a:b', 's')]", "name must be one word"),
        ("[Component('ordering', 'x', 'a.b', 's')]", "must be written as 'module:attribute', not 'a.b'"),
        ("[Component('ordering', 'x', 'a:b', None)]", "summary of the component 'x' must be text"),
        ("(1 / 0 for _ in '1')", "ZeroDivisionError"),
    ],
)
def test_a_wrong_answer_is_a_reason(guests, answer, reason):
    guests.add(
        "odd", f"from reorder_core import Component, hookimpl\n@hookimpl\ndef components():\n    return {answer}\n"
    )
    done = guests.run("list", "plugins", "--json")
    row = next(row for row in json.loads(done.stdout) if row["name"] == "odd")
    assert row["state"] == "broken"
    assert reason in row["reason"]


def test_a_forgotten_hookimpl_is_a_reason(guests):
    guests.add("silent", "def components():\n    return []\n")
    assert "is @hookimpl missing" in guests.run("list", "plugins").stdout
