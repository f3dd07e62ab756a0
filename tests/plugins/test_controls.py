"""The negative controls: each trains with the order that it says."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_controls import controls, plugin
from reorder_controls.settings import (
    LayerShuffleSettings,
    RandomEachBatchSettings,
    RandomFixedSettings,
    ReadoutSettings,
    UniformSettings,
)
from reorder_controls.uniform import Uniform

from reorder_core import (
    Clock,
    Context,
    DataFacts,
    Grid,
    Outcome,
    Policy,
    ReorderError,
    RunError,
    RunFacts,
    UsageError,
    conformance,
)
from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.recipe import Recipe, load_recipe
from reorder_core.training.controls import Controls

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
GRID = Grid(3, 4)
CLOCK = Clock(step=3, steps_per_epoch=10, learn_start=0, learn_stop=20, total=30)


def _context(seed: int = 0, grid: Grid = GRID) -> Context:
    generator = torch.Generator().manual_seed(seed)
    return Context(grid=grid, prior_N=np.arange(grid.size)[::-1].copy(), generator=generator)


def _learned(seed: int, size: int = GRID.size) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)


def _order(control: object, learned_N: np.ndarray | None, context: Context) -> np.ndarray:
    order_N = control.order_from(context, learned_N)
    assert order_N.dtype == np.int64
    assert np.array_equal(np.sort(order_N), np.arange(context.grid.size))
    return order_N


@pytest.mark.parametrize("component", plugin.components(), ids=lambda component: component.name)
def test_every_promise_can_be_kept(component: object) -> None:
    module, name = component.target.split(":")
    build = getattr(import_module(module), name)
    chosen = None
    if component.settings:
        home, cls = component.settings.split(":")
        chosen = getattr(import_module(home), cls)()
    built = build(chosen, _context())
    if component.kind == "control":
        assert built.name == component.name
    else:
        assert isinstance(built, Policy)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_orders_made_from_the_learned_one(seed: int) -> None:
    learned_N, context = _learned(seed), _context()
    inverse_N = _order(controls.inverse(None, context), learned_N, context)
    assert np.array_equal(learned_N[inverse_N], np.arange(GRID.size))
    assert np.array_equal(inverse_N[learned_N], np.arange(GRID.size))
    reverse_N = _order(controls.reverse(None, context), learned_N, context)
    assert np.array_equal(reverse_N[::-1], learned_N)
    static_N = _order(controls.learned_static(None, context), learned_N, context)
    assert np.array_equal(static_N, learned_N)
    static_N[:] = 0
    assert np.array_equal(np.sort(learned_N), np.arange(GRID.size)), "the learned order itself is never touched"


@pytest.mark.parametrize("make", [controls.inverse, controls.reverse, controls.learned_static])
def test_they_wait_for_the_main_run(make: object) -> None:
    control = make(None, _context())
    assert control.needs == "finished"
    with pytest.raises(RunError, match="main run has not finished"):
        control.order_from(_context(), None)


def test_initial_keeps_the_prior() -> None:
    context = _context()
    control = controls.initial(None, context)
    assert control.needs == "nothing"
    assert np.array_equal(_order(control, None, context), context.prior_N)
    with pytest.raises(UsageError, match="needs a policy"):
        control.order_from(Context(grid=GRID), None)


def test_random_fixed_is_one_order_a_seed() -> None:
    def order(seed: int) -> np.ndarray:
        control = controls.random_fixed(RandomFixedSettings(seed=seed), _context())
        return _order(control, None, _context())

    assert np.array_equal(order(1), order(1))
    assert not np.array_equal(order(1), order(2))


def test_random_each_batch_takes_the_uniform_policy() -> None:
    control = controls.random_each_batch(RandomEachBatchSettings(orders=3), _context())
    assert control.order_from is None
    assert control.overrides == {"policy": {"name": "uniform", "orders": 3}}
    whole = controls.random_each_batch(RandomEachBatchSettings(epochs=4), _context())
    assert whole.overrides["training.phases.learn"] == 4
    assert whole.overrides["training.phases.warm_up"] == 0


READOUTS = [controls.readout_class, controls.readout_mean, controls.readout_last]


@pytest.mark.parametrize("make", READOUTS, ids=lambda make: make.__name__)
def test_a_readout_changes_where_the_summary_is_read_and_nothing_else(make: object) -> None:
    place = make.__name__.removeprefix("readout_")
    control = make(ReadoutSettings(), _context())
    assert control.overrides == {"backbone.readout": place}
    assert (control.order_from, control.needs) == (None, "nothing")
    cleared = make(ReadoutSettings(without=("class_position",)), _context())
    assert cleared.overrides == {"backbone.class_position": None, "backbone.readout": place}


def test_a_changed_model_reads_in_the_order_that_it_is_told() -> None:
    learned_N, context = _learned(3), _context()
    for make, cls in ((controls.readout_mean, ReadoutSettings), (controls.layer_shuffle, LayerShuffleSettings)):
        initial = make(cls(order="initial"), context)
        assert np.array_equal(_order(initial, None, context), context.prior_N)
        learned = make(cls(order="learned"), context)
        assert learned.needs == "finished"
        assert np.array_equal(_order(learned, learned_N, context), learned_N)
        with pytest.raises(UsageError, match="needs a policy"):
            initial.order_from(Context(grid=GRID), None)


def test_layer_shuffle_stands_between_the_blocks() -> None:
    control = controls.layer_shuffle(LayerShuffleSettings(probability=0.2), _context())
    assert control.overrides == {"backbone.between": {"name": "layer_shuffle", "probability": 0.2}}


NAMES = ("inverse", "learned_static", "random_fixed", "random_each_batch", "reverse", "initial")
NAMES += ("layer_shuffle", "readout_class", "readout_mean", "readout_last")


def _smoke(*controls_: object) -> Recipe:
    small = {"backbone.width": 8, "training.steps_per_epoch": 3, "training.epochs": 3, "training.phases.learn": 1}
    return load_recipe(SMOKE).with_overrides({**small, "controls": list(controls_)})


def test_every_control_goes_by_its_name_in_a_recipe() -> None:
    recipe, catalogue = _smoke(*NAMES), Catalogue.load()
    jobs = {job.name: job for job in Controls(recipe, catalogue, None).jobs(Path(), np.arange(16)[::-1])}
    assert tuple(jobs) == NAMES
    for name, job in jobs.items():
        assert (job.recipe.policy is not None) is (name == "random_each_batch")
        readout = name.removeprefix("readout_") if name.startswith("readout_") else "last"
        assert job.recipe.backbone.settings.readout == readout
        assert (job.recipe.backbone.settings.between is not None) is (name == "layer_shuffle")
    fixed = {"layer_shuffle", "readout_class", "readout_mean", "readout_last"}
    assert {name for name, job in jobs.items() if job.order_from is None} == fixed
    Controls(recipe, catalogue, None).check()


def test_a_readout_that_the_backbone_does_not_have_is_found_before_the_run() -> None:
    backbone = {"name": "hierarchical", "mixer": "vit"}
    recipe = load_recipe(SMOKE).with_overrides({"backbone": backbone, "controls": ["readout_class"]})
    with pytest.raises(ReorderError, match="readout"):
        Controls(recipe, Catalogue.load(), None).check()


def test_they_train_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["backbone.width=8", "training.epochs=3", "training.phases.learn=1", "training.steps_per_epoch=3"]
    names = "controls=[layer_shuffle, {name: readout_mean, order: learned}]"
    overrides = [part for each in [*small, names] for part in ("-o", each)]
    assert main(["run", str(SMOKE), "--out", str(tmp_path), "--device", "cpu", *overrides]) == 0
    capsys.readouterr()
    (run,) = (tmp_path / "smoke").iterdir()
    orders = {}
    for name in ("layer_shuffle", "readout_mean"):
        assert (run / "controls" / name / "result.json").exists()
        orders[name] = json.loads((run / "controls" / name / "order.json").read_text())["permutation"]
    learned = json.loads((run / "order.json").read_text())["permutation"]
    assert orders["layer_shuffle"] == list(range(16))
    assert orders["readout_mean"] == learned


def test_more_orders_than_images_is_found_before_the_run() -> None:
    facts = RunFacts(
        data=DataFacts(height=12, width=16, channels=1), grid=GRID, patch=4, batch_size=4, positions="learned"
    )
    for cls in (RandomEachBatchSettings, UniformSettings):
        assert [problem.key for problem in cls(orders=5).problems(facts)] == ["orders"]
        assert not list(cls(orders=4).problems(facts))


def test_uniform_starts_at_the_prior_and_stays_there() -> None:
    context = _context()
    policy = Uniform(UniformSettings(orders=2), context)
    before = policy.best()
    draw = policy.draw(7, None, policy.temperature(CLOCK))
    step = policy.observe(draw, Outcome(torch.ones(1, 7), torch.arange(7), CLOCK))
    assert step.loss is None
    assert np.array_equal(before.numpy(), context.prior_N)
    assert torch.equal(policy.best(), before)
    assert not list(policy.parameters())


def test_uniform_draws_new_orders_and_spreads_them_evenly() -> None:
    policy = Uniform(UniformSettings(orders=3), _context())
    first, second = policy.draw(7, None, 1.0), policy.draw(7, None, 1.0)
    assert first.perm_GN.shape == (3, GRID.size)
    assert first.perm_GN.dtype == torch.int64
    assert not torch.equal(first.perm_GN, second.perm_GN)
    assert torch.bincount(first.group_B).tolist() == [3, 2, 2]
    assert torch.equal(first.perm_GN.sort(dim=1).values, torch.arange(GRID.size).expand(3, -1))
    assert policy.draw(2, None, 1.0).perm_GN.shape == (2, GRID.size)


def test_uniform_is_uniform_and_scores_what_it_draws() -> None:
    policy = Uniform(UniformSettings(orders=6000), _context(grid=Grid(1, 4)))
    draw = policy.draw(6000, None, 1.0)
    code_G = (draw.perm_GN * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    counts = torch.unique(code_G, return_counts=True)[1].double()
    assert len(counts) == 24
    chi_square = float(((counts - 250) ** 2 / 250).sum())
    assert chi_square < 49.7  # 0.1 % of the law with 23 degrees of freedom
    assert math.isclose(draw.log_prob_G.exp()[0].item(), 1 / 24, rel_tol=1e-5)


def test_uniform_follows_the_generator_of_the_run() -> None:
    first = Uniform(UniformSettings(), _context(seed=5)).draw(4, None, 1.0)
    again = Uniform(UniformSettings(), _context(seed=5)).draw(4, None, 1.0)
    assert torch.equal(first.perm_GN, again.perm_GN)
    with pytest.raises(UsageError, match="generator"):
        Uniform(UniformSettings(), Context(grid=GRID))


@pytest.mark.parametrize("component", plugin.components(), ids=lambda component: component.name)
def test_the_contract_of_its_kind(component: object) -> None:
    module, name = component.target.split(":")
    chosen = None
    if component.settings:
        home, cls = component.settings.split(":")
        chosen = getattr(import_module(home), cls)()
    check = {"control": conformance.check_control, "policy": conformance.check_policy}[component.kind]
    check(getattr(import_module(module), name), chosen)
