"""docs/writing_a_plugin.md does what it says; so do the example distribution and `reorder new`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = ("ordering", "backbone", "mixer", "between", "policy", "task", "dataset", "compressor", "tokenizer")


def install(target: Path, *distributions: Path) -> None:
    """`pip install` without an index, into a folder of its own."""
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *map(str, distributions)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def run(guests: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(guests)},
        cwd=guests,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The page's distribution and one of each kind that `reorder new` writes, installed together in one folder."""
    folder = tmp_path_factory.mktemp("written")
    page = (ROOT / "docs" / "writing_a_plugin.md").read_text()
    (folder / "empty").mkdir()
    for name, text in re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL):
        (folder / "empty" / name).write_text(text)
    for kind in KINDS:
        written = run(folder, "-m", "reorder_core", "new", kind, f"new_{kind}", "--out", "written")
        assert written.returncode == 0, written.stderr
    distributions = [folder / "written" / f"reorder-new-{kind}" for kind in KINDS]
    install(folder / "house", folder / "empty", *distributions)
    return folder / "house", distributions


def test_the_page_goes_from_an_empty_folder_to_an_ordering(house, tmp_path):
    page = (ROOT / "docs" / "writing_a_plugin.md").read_text()
    blocks = dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL))
    assert list(blocks) == ["pyproject.toml", "reorder_columns_first.py"]
    lines = [line for text in blocks.values() for line in text.splitlines() if line and not line.startswith("[")]
    assert len(lines) <= 20
    drawn = run(house[0], "-m", "reorder_core", "show", "ordering", "columns_first", "--grid", "2x3", "--json")
    assert json.loads(drawn.stdout)["permutation"] == [0, 3, 1, 4, 2, 5]
    code = re.search(r"```python\n(from reorder_core.conformance import check_ordering\n.*?)```", page, re.DOTALL)
    checked = run(house[0], "-c", code[1])
    assert checked.returncode == 0, checked.stderr


def test_the_settings_of_the_page_work():
    page = (ROOT / "docs" / "writing_a_plugin.md").read_text()
    code = re.search(r"```python\n(from pydantic.*?)```", page, re.DOTALL)
    assert code is not None
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(code[1], "page", "exec", dont_inherit=True), names)
    made = names["MySettings"](step=3, of={"name": "spiral", "inward": False})  # type: ignore[operator]
    assert (made.of.kind, made.of.name, dict(made.of.settings)) == ("ordering", "spiral", {"inward": False})


def test_the_example_is_installed_and_used(tmp_path):
    install(tmp_path / "house", ROOT / "docs" / "examples" / "boustrophedon_blocks")
    listed = run(tmp_path / "house", "-m", "reorder_core", "list", "orderings", "--json")
    row = next(row for row in json.loads(listed.stdout) if row["name"] == "boustrophedon_blocks")
    assert (row["state"], row["distribution"]) == ("ok", "reorder-boustrophedon-blocks")
    options = ["--grid", "2x4", "-o", "side=2", "--json"]
    drawn = run(tmp_path / "house", "-m", "reorder_core", "show", "ordering", "boustrophedon_blocks", *options)
    assert json.loads(drawn.stdout)["permutation"] == [0, 1, 5, 4, 2, 3, 7, 6]
    tests = ROOT / "docs" / "examples" / "boustrophedon_blocks" / "tests"
    done = run(tmp_path / "house", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tests))
    assert done.returncode == 0, done.stdout
    assert not list((ROOT / "docs" / "examples").rglob("build"))


def test_new_distributions_of_every_kind_install_and_pass_their_tests(house):
    folder, distributions = house
    listed = json.loads(run(folder, "-m", "reorder_core", "list", "--json").stdout)
    states = {(row["kind"], row["name"]): row["state"] for row in listed}
    assert all(states[kind, f"new_{kind}"] == "ok" for kind in KINDS)
    tests = [str(distribution / "tests") for distribution in distributions]
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "-W", "error", "--import-mode=importlib"]
    done = run(folder, "-m", "pytest", *options, *tests)
    assert done.returncode == 0, done.stdout
    assert f"{2 * len(KINDS)} passed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ordering", "Two-Words"], "use small letters, digits and underscores, for example 'two_words'"),
        (["ordering", "class"], "'class' is no name for the kind ordering"),
        (["policy", "uniform"], "there is the policy 'uniform' of controls (reorder 0.1.0) already"),
        (["ordering", "mamba"], "a package reorder_mamba is installed already"),
        (["control", "mine"], "there is no template for a control"),
        (["orderng", "mine"], "did you mean 'ordering'?"),
        (["ordering", "there"], "exists already"),
    ],
)
def test_new_refuses_with_one_line(tmp_path, arguments, said):
    (tmp_path / "reorder-there").mkdir()
    done = run(tmp_path, "-m", "reorder_core", "new", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
