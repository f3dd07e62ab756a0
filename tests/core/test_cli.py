"""The program: list, show, exit codes, errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import click
import pytest

from reorder_core.catalogue import Catalogue, OfferedCommand
from reorder_core.cli import main as program
from reorder_core.cli.describe import settings_of, type_in_words
from reorder_core.cli.show import read_settings
from reorder_core.component import Command
from reorder_core.errors import RunError, UsageError
from reorder_core.settings import Ref, Settings


@pytest.fixture
def reorder(capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        code = program.main(arguments)
        written = capsys.readouterr()
        return code, written.out, written.err

    return call


def test_list_shows_kind_name_summary_source_and_state(reorder):
    code, out, _ = reorder("list", "--json")
    rows = json.loads(out)
    assert code == 0
    entry = Catalogue.load().find("backbone", "mamba")
    row = next(row for row in rows if (row["kind"], row["name"]) == ("backbone", "mamba"))
    assert (row["summary"], row["distribution"], row["state"]) == (entry.component.summary, "reorder", "ok")
    assert row["seconds"] > 0


def test_list_plain_is_tab_separated_and_never_cut(reorder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    _, out, _ = reorder("list", "backbones", "--plain")
    rows = [line.split("\t") for line in out.splitlines()]
    assert all(len(row) == 8 for row in rows)
    assert {row[1] for row in rows} >= {"mamba", "vit"}
    assert {row[2] for row in rows} >= {Catalogue.load().find("backbone", "vit").component.summary}


def test_list_plugins_gives_a_row_a_plugin_with_its_components(reorder):
    _, out, _ = reorder("list", "plugins", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["controls"]["components"][0] == "initial"
    assert rows["core"]["commands"] == ["list", "show", "check", "run", "export", "new", "schema"]
    _, out, _ = reorder("list", "plugins")
    assert out.splitlines()[0].split() == ["name", "components", "distribution", "version", "state", "load"]


def test_list_takes_any_kind_and_explains_an_unknown_one(reorder):
    for kind in Catalogue.load().kinds.values():
        assert reorder("list", kind.plural)[0] == 0
    code, out, err = reorder("list", "backbnes")
    assert (code, out) == (2, "")
    assert err == "there is no kind of component called 'backbnes'; did you mean 'backbone'?\n"


def test_list_recipes_reads_names_and_first_comments(reorder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reorder("list", "recipes")[0] == 0
    (tmp_path / "recipes" / "paper").mkdir(parents=True)
    (tmp_path / "recipes" / "a.yaml").write_text("# A small one.\nname: tiny  # its name\n")
    (tmp_path / "recipes" / "paper" / "b.yaml").write_text("seed: 1\n")
    _, out, _ = reorder("list", "recipes", "--json")
    assert [(row["name"], row["summary"]) for row in json.loads(out)] == [("tiny", "A small one."), ("b", "")]


def test_show_gives_settings_with_types_defaults_and_docs(reorder):
    code, out, _ = reorder("show", "backbones", "mamba", "--json")
    assert code == 0
    width = next(setting for setting in json.loads(out)["settings"] if setting["name"] == "width")
    assert width["type"] == "int >= 1"
    assert width["description"]
    code, out, _ = reorder("show", "backbone", "mamba")
    assert f"  width: int >= 1, default {width['default']}" in out


def test_show_needs_no_settings_to_describe_what_requires_some(reorder):
    for name in ("image_folder", "torchvision", "timm"):
        code, out, _ = reorder("show", "dataset", name)
        assert (code, "required" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "ordering", "hilbrt"], "there is no ordering called 'hilbrt'"),
        (["show", "policy", "uniform", "-o", "ordrs=2"], "no such setting 'ordrs'; did you mean 'orders'?"),
        (
            ["show", "policy", "uniform", "-o", "orders=-1"],
            "orders: input should be greater than or equal to 1, not -1",
        ),
        (["show", "policy", "uniform", "-o", "orders"], "write it as KEY=VALUE"),
        (["show", "policy", "uniform", "--png", "x.png"], "--png draws orderings"),
        (["shw"], "there is no command called 'shw'; did you mean 'show'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(reorder, arguments, said):
    code, out, err = reorder(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_show_draws_an_ordering_and_gives_its_permutation(reorder, tmp_path):
    code, out, _ = reorder("show", "ordering", "row_major", "--grid", "2x3", "--json")
    assert code == 0
    assert json.loads(out) == {"name": "row_major", "grid": "2x3", "permutation": [0, 1, 2, 3, 4, 5]}
    code, out, err = reorder("show", "ordering", "row_major", "--grid", "3x4", "--png", str(tmp_path / "a.png"))
    assert (code, err) == (0, "")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_overrides_are_read_as_yaml():
    assert read_settings(["a=1", "b.name=spiral", "b.inward=false", "c={d: [1, x]}"]) == {
        "a": 1,
        "b": {"name": "spiral", "inward": False},
        "c": {"d": [1, "x"]},
    }
    with pytest.raises(UsageError, match="no YAML value"):
        read_settings(["a=[1"])


def test_settings_in_words():
    class Some(Settings):
        of: Ref["ordering"] = "row_major"  # noqa: F821, UP037
        """another one"""
        sizes: tuple[int, ...] = (1, 2)

    of, sizes = settings_of(Some)
    assert (of.type, of.default, of.description, of.required) == ("ordering", "row_major", "another one", False)
    assert (sizes.type, sizes.default) == ("tuple[int, …]", [1, 2])
    assert type_in_words(int | None) == "int | null"


@pytest.fixture
def failing(monkeypatch):
    """A command `fail` that raises what it is told to."""

    def install(error: BaseException) -> None:
        @click.command()
        def fail() -> None:
            raise error

        module = types.ModuleType("a_failing_command")
        module.fail = fail
        monkeypatch.setitem(sys.modules, "a_failing_command", module)
        offered = OfferedCommand(Command("fail", "a_failing_command:fail", "Fails."), "test", "test")
        monkeypatch.setitem(Catalogue.load().commands, "fail", offered)

    return install


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("write it so"), 2, "write it so\n"),
        (RunError("the disk is full"), 1, "the disk is full\n"),
        (ValueError("a\nb"), 1, "ValueError: a b (unexpected; `reorder --debug …` shows where)\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_exit_codes_and_one_line(reorder, failing, error, code, said):
    failing(error)
    got, out, err = reorder("fail")
    assert (got, out, err.lstrip("\n")) == (code, "", said)


def test_debug_shows_the_traceback(reorder, failing):
    failing(UsageError("write it so"))
    code, _, err = reorder("--debug", "fail")
    assert code == 2
    assert "Traceback" in err


def test_click_errors_exit_2_and_help_and_version_0(reorder):
    assert reorder("list", "--nonsense")[0] == 2
    assert reorder("--version")[:2] == (0, "reorder 0.1.0\n")
    code, out, _ = reorder("--help")
    assert code == 0
    assert "Check recipes without running them." in out


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m reorder_core list --plain | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_completion_knows_commands_kinds_and_names():
    def complete(*words: str) -> list[str]:
        told = {"_REORDER_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("reorder", *words))}
        done = subprocess.run(
            [sys.executable, "-m", "reorder_core"],
            env={**os.environ, **told, "COMP_CWORD": str(len(words))}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("sh") == ["show"]
    assert complete("show", "back") == ["backbone"]
    assert complete("show", "backbone", "ma") == ["mamba", "mamba2"]
    assert complete("list", "pol") == ["policies"]
    assert complete("new", "da") == ["dataset"]
