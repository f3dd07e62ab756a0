"""Nine kinds of bad guests: each has its row with its reason, and nobody else is disturbed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"

BROKEN = {
    "raises": "RuntimeError: the guest fell over in two lines",
    "exits": "left the program when it was loaded (SystemExit: 3)",
    "twice": "offers the ordering 'same' twice",
    "misspelt": "answers the hook 'componets', which does not exist; did you mean 'components'?",
    "wrongkind": "'lost' is of the kind 'orderng', which no plugin declares; did you mean 'ordering'?",
}


@pytest.fixture(scope="module")
def plugins(crowd):
    done = crowd.run("list", "plugins", "--json")
    assert done.returncode == 0
    return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def components(crowd):
    done = crowd.run("list", "--json", REORDER_DISABLE_PLUGINS="eager")
    assert done.returncode == 0
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_guest_has_a_row_with_its_reason(plugins, components, name):
    assert plugins[name]["state"] == "broken"
    assert plugins[name]["reason"] == BROKEN[name]
    assert plugins[name]["distribution"] == f"reorder-{name}"
    row = next(row for row in components if row["kind"] == "plugin" and row["name"] == name)
    assert (row["state"], row["reason"]) == ("broken", BROKEN[name])


def test_a_rival_and_the_built_in_are_both_in_conflict(crowd, components):
    rows = [row for row in components if (row["kind"], row["name"]) == ("policy", "uniform")]
    assert {row["distribution"] for row in rows} == {"reorder", "reorder-rival"}
    assert {row["state"] for row in rows} == {"conflict"}
    done = crowd.run("show", "policy", "uniform", REORDER_DISABLE_PLUGINS="eager")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "reorder 0.1.0" in done.stderr
    assert "reorder-rival 1.0" in done.stderr
    assert crowd.run("show", "policy", "uniform", REORDER_DISABLE_PLUGINS="rival,eager").returncode == 0


def test_an_eager_guest_works_and_is_named(plugins):
    assert plugins["eager"]["state"] == "ok"
    assert plugins["eager"]["reason"].startswith("imports numpy and torch when it is loaded")
    assert plugins["eager"]["seconds"] > plugins["calm"]["seconds"]


def test_wrong_settings_are_one_line(crowd):
    done = crowd.run("show", "ordering", "wrongset", REORDER_DISABLE_PLUGINS="eager")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "wrongset_settings:Chosen" in done.stderr
    assert "reorder-wrongset 1.0" in done.stderr


def test_no_permutation_is_one_line(crowd):
    done = crowd.run("show", "ordering", "noperm", "--json", REORDER_DISABLE_PLUGINS="eager")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "reorder-noperm 1.0" in done.stderr
    assert done.stdout == ""


def test_verify_gives_both_a_row(crowd):
    done = crowd.run("list", "orderings", "--verify", "--json", REORDER_DISABLE_PLUGINS="eager")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["calm"]["state"] == "ok"
    assert rows["noperm"]["state"] == rows["wrongset"]["state"] == "broken"
    assert "noperm" in rows["noperm"]["reason"]
    assert "Settings" in rows["wrongset"]["reason"]


def test_the_others_live_on(crowd):
    done = crowd.run("show", "ordering", "calm", "--grid", "2x3", "--json", REORDER_DISABLE_PLUGINS="eager")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"name": "calm", "grid": "2x3", "permutation": [5, 4, 3, 2, 1, 0]}
    assert crowd.run("--help", REORDER_DISABLE_PLUGINS="eager").returncode == 0


def test_a_guest_that_prints_spoils_no_json(guests, source_of):
    guests.add("chatty", "print('hello')\n" + source_of())
    done = guests.run("list", "plugins", "--json")
    assert "chatty" in {row["name"] for row in json.loads(done.stdout)}
    assert done.stderr == "hello\n"


def test_a_recipe_of_the_others_is_checked_and_runs(crowd, tmp_path):
    """With all nine in the house, eager torch included."""
    recipe = str(SMOKE)
    checked = crowd.run("check", recipe)
    assert (checked.returncode, checked.stderr) == (0, "")
    ran = crowd.run("run", recipe, "--dry-run", "--device", "cpu", "--out", str(tmp_path / "runs"))
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("ordering=noperm", "the ordering 'noperm' of noperm (reorder-noperm 1.0) repeats patch 0"),
        (
            "ordering=wrongset",
            "the ordering 'wrongset' of wrongset (reorder-wrongset 1.0) are no reorder_core.Settings",
        ),
        ("policy=uniform", "is offered by controls (reorder 0.1.0) and by rival (reorder-rival 1.0)"),
        ("ordering=same", "there is no ordering called 'same'"),
    ],
)
def test_a_run_that_asks_for_a_bad_guest_says_who_it_is(crowd, override, said):
    ran = crowd.run("run", str(SMOKE), "--dry-run", "--device", "cpu", "-o", override, REORDER_DISABLE_PLUGINS="eager")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
    assert said in ran.stderr


def test_what_is_switched_off_is_not_imported(crowd):
    done = crowd.run("list", "plugins", "--plain", REORDER_DISABLE_PLUGINS="exits, raises,eager,core")
    rows = {line.split("\t")[0]: line.split("\t") for line in done.stdout.splitlines()}
    assert rows["exits"][4] == rows["raises"][4] == "off"
    assert rows["core"][4] == "ok"
    assert all(len(row) == 7 for row in rows.values())
