"""Recipes: the resolved form, overrides, references, fingerprints, and YAML read without guessing."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from reorder_core.catalogue import Catalogue
from reorder_core.component import Component
from reorder_core.discovery import PluginRecord
from reorder_core.errors import UsageError
from reorder_core.recipe import KEYS, RecipeError, load_recipe, recipe_from_mapping
from reorder_core.recipe_yaml import read_yaml, write_value, write_yaml
from reorder_core.settings import DatasetSettings, Ref, Settings

BASE = {
    "name": "base",
    "data": {"name": "digits"},
    "patch": {"size": 2},
    "ordering": "row_major",
    "backbone": {"name": "mamba", "width": 16, "depth": 1},
    "policy": {"name": "reinforce", "orders": 4},
    "task": "classification",
    "training": {"epochs": 4, "batch_size": 32, "phases": {"warm_up": 1, "learn": 1}},
}
BASE_RECIPE = recipe_from_mapping(BASE)
OrderingRef = Ref["ordering"]


class InnerSettings(Settings):
    of: OrderingRef | None = None
    word: str = "x"


class NestingSettings(Settings):
    """References wherever they can stand."""

    listed: list[OrderingRef] = Field(default_factory=list)
    chosen: OrderingRef | int = 0
    named: dict[str, OrderingRef] = Field(default_factory=dict)
    inner: InnerSettings = InnerSettings()


@pytest.fixture
def nesting(monkeypatch) -> Catalogue:
    """The installed plugins, and one whose ordering refers to others in every way."""
    module = ModuleType("nesting_for_tests")
    module.NestingSettings = NestingSettings
    monkeypatch.setitem(sys.modules, "nesting_for_tests", module)
    component = Component("ordering", "nesting", "nesting_for_tests:none", "x", "nesting_for_tests:NestingSettings")
    record = PluginRecord(
        name="nesting",
        distribution="nesting",
        version="1",
        module="nesting_for_tests",
        state="ok",
        reason="",
        seconds=0.0,
        components=(component,),
        kinds=(),
        commands=(),
    )
    return Catalogue([*Catalogue.load().plugins, record])


def test_what_is_left_out_has_its_default():
    recipe = recipe_from_mapping(BASE)
    assert (recipe.seed, recipe.controls, recipe.positions.kind) == (0, (), "learned")
    assert recipe.training.optimizer.betas == (0.9, 0.999)
    assert recipe.training.validate.every == 1
    assert recipe.facts.grid.size == 16
    assert recipe.steps_per_epoch == 1437 // 32
    assert list(recipe.resolved()) == list(KEYS)


def test_a_control_is_a_control_or_an_ordering():
    recipe = recipe_from_mapping({**BASE, "controls": ["random_fixed", {"name": "spiral", "inward": False}]})
    assert [control.ref.kind for control in recipe.controls] == ["control", "ordering"]
    assert recipe.controls[1].settings.inward is False
    assert recipe.resolved()["controls"][1]["corner"] == "top_left"


@given(
    seed=st.integers(0, 2**31 - 1),
    lr=st.floats(1e-8, 1.0),
    temperature=st.floats(1e-3, 1e3),
    clip=st.none() | st.floats(1e-3, 1e3),
    workers=st.just("auto") | st.integers(0, 8),
    curves=st.lists(st.sampled_from(["hilbert", "snake", {"name": "reverse", "of": {"name": "spiral"}}]), max_size=3),
    controls=st.lists(st.sampled_from(["row_major", "hilbert", "reverse", "random_fixed"]), unique=True),
    unit=st.sampled_from(["epochs", "steps"]),
)
def test_the_resolved_form_loads_back_equal(
    tmp_path_factory, seed, lr, temperature, clip, workers, curves, controls, unit
):
    training = {
        **BASE["training"],
        "phases": {"unit": unit, "warm_up": 0.5, "learn": 1},
        "optimizer": {"lr": lr, "clip": clip},
        "workers": workers,
    }
    policy = {"name": "reinforce", "temperature": temperature, "curves": curves}
    recipe = recipe_from_mapping({**BASE, "seed": seed, "policy": policy, "controls": controls, "training": training})
    assert recipe_from_mapping(recipe.resolved()) == recipe
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    again = load_recipe(path)
    assert again == recipe
    assert again.fingerprint() == recipe.fingerprint()
    assert again.with_overrides([]) == recipe


@given(data=st.data())
def test_the_override_of_a_value_round_trips(data):
    key, value = data.draw(
        st.one_of(
            st.tuples(st.just("seed"), st.integers(0, 2**31 - 1)),
            st.tuples(st.just("name"), st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,12}\Z")),
            st.tuples(st.just("policy.temperature"), st.floats(1e-6, 1e6)),
            st.tuples(st.just("policy.prior"), st.none() | st.just({"name": "row_major"})),
            st.tuples(st.just("training.optimizer.betas"), st.lists(st.floats(0, 0.99), min_size=2, max_size=2)),
            st.tuples(st.just("training.compile"), st.booleans()),
            st.tuples(st.just("training.checkpoint.every_steps"), st.none() | st.integers(1, 10**9)),
        )
    )
    text = f"{key}={write_value(value)}"
    for recipe in (
        BASE_RECIPE.with_overrides([text]),
        BASE_RECIPE.with_overrides({key: value}),
        recipe_from_mapping(BASE, overrides=[text]),
    ):
        found = recipe.resolved()
        for part in key.split("."):
            found = found[part]
        assert found == value
        assert type(found) is type(value)


def test_a_change_of_component_resets_its_settings():
    changed = BASE_RECIPE.with_overrides(["backbone.name=vit"])
    assert changed.backbone.resolved()["depth"] == 12
    assert BASE_RECIPE.with_overrides(["backbone.name=mamba"]) == BASE_RECIPE
    assert BASE_RECIPE.with_overrides(["backbone.name=vit", "backbone.depth=2"]).backbone.settings.depth == 2


def test_an_override_reaches_into_a_word_and_into_what_was_left_out():
    recipe = recipe_from_mapping(
        {**BASE, "ordering": "spiral"},
        overrides=["ordering.inward=no", "training.schedule.warm_up=1", "positions.kind=none"],
    )
    assert recipe.ordering.settings.inward is False
    assert recipe.training.schedule.warm_up == 1
    assert recipe.positions.kind == "none"


def test_a_part_is_taken_away():
    fixed = BASE_RECIPE.with_overrides(["policy=null"])
    assert fixed.policy is None
    assert recipe_from_mapping(fixed.resolved()) == fixed
    back = fixed.with_overrides({"policy": {"name": "uniform", "orders": 2}})
    assert back.policy.name == "uniform"


def test_an_item_of_a_list_is_overridden():
    recipe = recipe_from_mapping({**BASE, "controls": ["hilbert", "spiral"]})
    changed = recipe.with_overrides(["controls.1.inward=false", "controls.0=snake"])
    assert [control.name for control in changed.controls] == ["snake", "spiral"]
    assert changed.controls[1].settings.inward is False


def test_the_fingerprint_is_about_the_result():
    same = ["name=other", "controls=[hilbert]", "training.workers=3", "training.checkpoint.every_steps=7"]
    assert BASE_RECIPE.with_overrides([*same, "training.log_every=1"]).fingerprint() == BASE_RECIPE.fingerprint()
    for other in ("seed=1", "backbone.width=32", "policy=null", "training.optimizer.lr=0.5", "positions.kind=none"):
        assert BASE_RECIPE.with_overrides([other]).fingerprint() != BASE_RECIPE.fingerprint()


def test_references_are_checked_wherever_they_stand(nesting):
    wrong = {
        "name": "nesting",
        "listed": ["hilbert", {"name": "spirall"}],
        "chosen": {"name": "spiral", "inwards": True},
        "named": {"a": {"name": "row_major", "b": 1}},
        "inner": {"of": {"name": "reverse", "of": "nothing"}},
    }
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({**BASE, "ordering": wrong}, catalogue=nesting)
    keys = {line.split(": ")[1] for line in caught.value.lines}
    assert keys == {"ordering.listed.1", "ordering.chosen.inwards", "ordering.named.a.b", "ordering.inner.of.of"}


def test_references_are_completed_wherever_they_stand(nesting):
    good = {
        "name": "nesting",
        "listed": ["hilbert", {"name": "spiral"}],
        "chosen": 3,
        "named": {"a": {"name": "reverse", "of": "snake"}},
        "inner": {"of": "spiral"},
    }
    recipe = recipe_from_mapping({**BASE, "ordering": good}, catalogue=nesting)
    found = recipe.ordering.resolved()
    assert found["listed"][1]["corner"] == "top_left"
    assert found["named"]["a"]["of"] == {"name": "snake", "axis": "rows"}
    assert found["inner"]["of"]["clockwise"] is True
    assert recipe_from_mapping(recipe.resolved(), catalogue=nesting) == recipe


def test_a_data_set_that_does_not_describe_itself_is_one_sentence():
    class Mute(DatasetSettings):
        pass

    with pytest.raises(UsageError, match=r"^Mute must say what its data looks like: define describe\(\)$"):
        Mute().describe()


def test_text_that_yaml_takes_for_something_else(tmp_path, nesting):
    path = tmp_path / "x.yaml"
    for written in ("no", "010", "1e-4", "null", "true", "2020-01-01", "12:30"):
        path.write_text(
            "name: 007\ndata: digits\npatch: {size: 2}\nbackbone: {name: mamba, width: 16}\ntask: classification\n"
            f"ordering: {{name: nesting, inner: {{word: {written}}}}}\n"
            "training: {epochs: 1e0, batch_size: '32', optimizer: {lr: 1e-4, weight_decay: '1e-2'}, compile: no}\n"
        )
        recipe = load_recipe(path, catalogue=nesting)
        assert recipe.ordering.settings.inner.word == written
        assert recipe.name == "007"
        assert recipe.training.optimizer.lr == 1e-4
        assert recipe.training.optimizer.weight_decay == 1e-2
        assert (recipe.training.epochs, recipe.training.batch_size, recipe.training.compile) == (1, 32, False)
        assert load_recipe(path, [f"ordering.inner.word={written}"], nesting) == recipe


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.from_regex(r"\A[a-z]{1,6}\Z"), PLAIN, max_size=4))
def test_what_is_written_as_yaml_is_read_back(value):
    document = read_yaml(write_yaml(value) if value else "{}")
    assert document.problems == []
    assert document.value == value


@given(text=st.text(alphabet="ab:{}[]-!&*#\n \t'\"|>%@`?,0.1", max_size=40))
def test_any_text_is_read_or_answered(text):
    document = read_yaml(text)
    assert all(line >= 1 and message for line, _, message in document.problems)
