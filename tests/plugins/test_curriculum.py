"""The room curriculum: ways between orders, when each is gone, and what is read in each stage."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_curriculum.curriculum import Curriculum
from reorder_curriculum.path import blend, settle, settled_slots
from reorder_curriculum.settings import CurriculumSettings
from reorder_curriculum.timing import weight_of_end

from reorder_core import Clock, Context, DataFacts, Grid, Outcome, Policy, RunFacts, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_policy, context
from reorder_core.conformance.strategies import permutations
from reorder_core.permutation import kendall_tau
from reorder_core.recipe import load_recipe
from reorder_core.recipe_sections import PhasesSection
from reorder_core.recipe_settings import plain
from reorder_core.settings import ComponentRef

GRID = Grid(4, 6)
CLOCK = Clock(step=20, steps_per_epoch=10, learn_start=20, learn_stop=60, total=80)
LEARNER = {"name": "reinforce", "orders": 4}
CASES: list[dict] = [
    {},
    {"orders": 4, "schedule": "cosine"},
    {"start": "column_major"},
    {"start": "snake", "end": {"name": "reverse", "of": "hilbert"}, "path": "back", "slots": 3},
    {"learner": LEARNER},
    {"learner": LEARNER, "end": "learned_reversed"},
    {"learner": {**LEARNER, "orders_per_image": 2}, "start": "column_major", "end": "learned", "path": "front"},
    {"learner": "curve_bandit"},
]
each_case = pytest.mark.parametrize("chosen", CASES, ids=str)


def policy(prior_N: np.ndarray | None = None, grid: Grid = GRID, seed: int = 0, **chosen: object) -> Curriculum:
    prior_N = np.random.default_rng(5).permutation(grid.size) if prior_N is None else prior_N
    return Curriculum(CurriculumSettings(**chosen), context(grid, prior_N=prior_N, seed=seed))


def order_of(name: str, grid: Grid = GRID) -> list[int]:
    return Catalogue.load().build(ComponentRef("ordering", name), context(grid)).permutation(grid).tolist()


def run(made: Curriculum, steps: range, batch: int = 16, loss=None):
    """Goes through steps as a run does; yields (clock, draw, best after it)."""
    optimizer = torch.optim.SGD([*made.parameters(), torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    generator = torch.Generator().manual_seed(3)
    for step in steps:
        clock = replace(CLOCK, step=step)
        draw = made.draw(batch, None, made.temperature(clock))
        rows = 1 if draw.extra_MB is None else 1 + len(draw.extra_MB)
        loss_MB = torch.rand(rows, batch, generator=generator) if loss is None else loss(draw)
        done = made.observe(draw, Outcome(loss_MB, torch.arange(batch), clock))
        if done.loss is not None:
            done.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        yield clock, draw, made.best()


# ------------------------------------------------------------------ the contract


@pytest.mark.parametrize("chosen", [*CASES, {"learner": "amortised"}], ids=str)
def test_keeps_the_contract(chosen: dict) -> None:
    check_policy(Curriculum, CurriculumSettings(**chosen), grid=Grid(3, 4), examples=3)


def test_a_learner_that_looks_at_the_images_is_shown_them_from_the_first_validation_on() -> None:
    prior_N = np.random.default_rng(1).permutation(GRID.size)
    made = policy(prior_N, learner="amortised")
    tokens_BND = torch.randn(3, GRID.size, 32)
    assert made.reads_tokens
    assert made.best(tokens_BND).tolist() == [prior_N.tolist()] * 3
    assert made.best(None).tolist() == prior_N.tolist()


def test_is_installed_under_its_name() -> None:
    check_policy("curriculum", {"start": "column_major", "end": "snake"}, grid=Grid(2, 3), examples=2)
    assert isinstance(policy(), Policy)


@each_case
def test_starts_at_the_prior_and_ends_at_the_end(chosen: dict) -> None:
    prior_N = np.random.default_rng(1).permutation(GRID.size)
    made = policy(prior_N, **chosen)
    assert made.best().tolist() == prior_N.tolist()
    for _, draw, _ in run(made, range(20, 60)):
        assert draw.perm_GN.sort(1).values.tolist() == [list(range(GRID.size))] * len(draw.perm_GN)
    if "learned" not in str(chosen.get("end")):
        end = chosen.get("end")
        wanted = prior_N.tolist() if end is None else order_of("hilbert")[::-1]
    else:
        learned = made.learner.best(None).tolist()
        wanted = learned[::-1] if chosen["end"] == "learned_reversed" else learned
    assert made.best().tolist() == wanted


# ------------------------------------------------------------------ ways


@given(permutations(9), permutations(9), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_blend_goes_straight_from_start_to_end(start_N, end_N, one: float, two: float) -> None:
    start_N, end_N = torch.from_numpy(start_N), torch.from_numpy(end_N)
    assert blend(start_N, end_N, 0.0).tolist() == start_N.tolist()
    assert blend(start_N, end_N, 1.0).tolist() == end_N.tolist()
    early_N, late_N = (blend(start_N, end_N, weight) for weight in sorted((one, two)))
    assert sorted(early_N.tolist()) == list(range(9))
    assert kendall_tau(early_N, end_N) <= kendall_tau(late_N, end_N)
    assert kendall_tau(early_N, start_N) >= kendall_tau(late_N, start_N)


@given(permutations(9), permutations(9), st.integers(0, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_settled_slots_are_those_of_the_end(start_N, end_N, settled: int, back: bool) -> None:
    start_N, end_N = torch.from_numpy(start_N), torch.from_numpy(end_N)
    found = settle(start_N, end_N, settled, back).tolist()
    assert sorted(found) == list(range(9))
    placed = found[9 - settled :] if back else found[:settled]
    assert placed == (end_N.tolist()[9 - settled :] if back else end_N.tolist()[:settled])
    rest = found[: 9 - settled] if back else found[settled:]
    assert rest == [patch for patch in start_N.tolist() if patch not in placed]


def test_slots_are_settled_in_whole_moves() -> None:
    assert [settled_slots(weight / 10, 4, 10) for weight in range(11)] == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 10]
    assert [settled_slots(k / 7, 1, 7) for k in range(8)] == list(range(8))


# ------------------------------------------------------------------ when


def weights(**chosen: object) -> list[float]:
    made = CurriculumSettings(**chosen)
    return [weight_of_end(made, replace(CLOCK, step=step)) for step in range(20, 62)]


def test_the_way_over_time() -> None:
    assert weights()[:40] == pytest.approx([step / 40 for step in range(40)], abs=1e-12)
    assert weights()[40:] == [1.0, 1.0]
    held = weights(hold=0.5)
    assert held[:21] == [0.0] * 21
    assert held[30] == pytest.approx(0.5)
    assert held[40] == 1.0
    smooth = weights(schedule="cosine")
    assert 0 < smooth[1] < weights()[1]
    assert smooth[20] == pytest.approx(0.5)
    assert weights(every=10)[:31] == [0.0] * 10 + [0.25] * 10 + [0.5] * 10 + [0.75]
    assert weights(every=1, unit="epochs") == weights(every=10)
    half = weights(learner="reinforce", learner_share=0.5)
    assert half[:21] == [0.0] * 21
    assert half[30] == 0.5
    for chosen in CASES:
        way = weights(**chosen)
        assert way == sorted(way)


def test_the_temperature_is_what_is_left_of_the_way() -> None:
    made = policy(start="snake")
    assert [made.temperature(replace(CLOCK, step=step)) for step in (0, 19, 20, 40, 60, 79)] == [0, 0, 1, 0.5, 0, 0]
    learns = policy(learner={**LEARNER, "temperature": 0.2, "schedule": "constant"})
    assert [learns.temperature(replace(CLOCK, step=step)) for step in (19, 20, 39, 40, 50, 60)] == [
        0,
        0.2,
        0.2,
        1,
        0.5,
        0,
    ]


def test_a_move_without_a_learner_is_a_pure_function_of_the_clock() -> None:
    """A policy that starts in the middle of the phase stands where one that came all the way does."""
    chosen = {"start": "snake", "end": "hilbert", "path": "front", "every": 4}
    walked, fresh = policy(**chosen), policy(**chosen)
    for clock, draw, _ in run(walked, range(20, 50)):
        again = fresh.draw(16, None, fresh.temperature(clock))
        assert torch.equal(draw.perm_GN, again.perm_GN)
        assert draw.group_B.tolist() == [0] * 16


def test_validation_reads_where_the_next_step_stands() -> None:
    made = policy(start="snake", end="hilbert")
    steps = list(run(made, range(20, 60)))
    assert steps[0][1].perm_GN[0].tolist() == order_of("snake")
    for (_, _, best_N), (_, draw, _) in itertools.pairwise(steps):
        assert best_N.tolist() == draw.perm_GN[0].tolist()
    assert steps[-1][2].tolist() == order_of("hilbert")


# ------------------------------------------------------------------ random to named


@pytest.mark.parametrize("orders", [None, 8])
def test_random_orders_get_rarer(orders: int | None) -> None:
    made = policy(end="hilbert", orders=orders)
    end_N = torch.tensor(order_of("hilbert"))
    shares = []
    for _, draw, best_N in run(made, range(20, 60), batch=200):
        assert best_N.tolist() == end_N.tolist(), "validation reads the end"
        is_end_G = (draw.perm_GN == end_N).all(1)
        shares.append(float(is_end_G[draw.group_B].double().mean()))
        assert len(draw.perm_GN) <= 1 + (orders or 200)
        assert int(draw.group_B.max()) < len(draw.perm_GN)
    assert shares[0] == 0.0
    expected = np.arange(40) / 40
    tolerance = 0.15 if orders is None else 0.6
    assert np.abs(np.array(shares) - expected).max() < tolerance
    assert np.mean(shares) == pytest.approx(expected.mean(), abs=0.06)


def test_each_image_has_its_own_random_order() -> None:
    draw = policy().draw(32, None, 1.0)
    assert len({tuple(perm_N) for perm_N in draw.perm_GN[draw.group_B].tolist()}) == 32
    assert len(policy().draw(32, None, 0.0).perm_GN) == 1


def test_random_slots_are_uniform() -> None:
    draw = policy(grid=Grid(1, 4)).draw(6000, None, 1.0)
    code_B = (draw.perm_GN[draw.group_B] * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = torch.unique(code_B, return_counts=True)[1].double()
    assert len(counts) == 24
    assert float(((counts - 250) ** 2 / 250).sum()) < 49.7  # 0.1 % of chi-square with 23 degrees of freedom


# ------------------------------------------------------------------ with a learner


def first_patch_last(draw) -> torch.Tensor:
    """The loss of each image: how early patch 0 is read."""
    slot_G = (draw.perm_GN == 0).float().argmax(1)
    group_MB = draw.group_B[None] if draw.extra_MB is None else torch.cat([draw.group_B[None], draw.extra_MB])
    return 1.0 - slot_G[group_MB] / draw.perm_GN.shape[1]


def test_what_was_learned_is_carried_to_the_end() -> None:
    made = policy(np.arange(24), learner={**LEARNER, "logits": "patch"}, end="column_major")
    steps = list(run(made, range(20, 60), loss=first_patch_last))
    learned = made.learner.best(None).tolist()
    assert learned != list(range(24))
    assert steps[20][1].perm_GN[0].tolist() == learned, "the move starts at the learned order, its last update included"
    assert all(len(draw.perm_GN) == 4 for _, draw, _ in steps[:20])
    taus = [kendall_tau(draw.perm_GN[0], torch.tensor(order_of("column_major"))) for _, draw, _ in steps[20:]]
    assert taus == sorted(taus)
    assert steps[-1][2].tolist() == order_of("column_major")


def test_the_learner_has_the_word_in_its_share_only() -> None:
    made = policy(learner={**LEARNER, "orders_per_image": 3})
    assert made.orders_per_image == 3
    losses = []
    for clock, draw, _ in run(made, range(20, 60)):
        assert (draw.extra_MB is not None) is (clock.step < 40)
        losses.append(made.learner.state_dict()["logits.learned_CP"].clone())
    assert made.orders_per_image == 1
    assert not torch.equal(losses[0], losses[19])
    assert all(torch.equal(losses[19], later) for later in losses[20:])


def test_parameters_of_the_learner_are_trained_as_it_says() -> None:
    from reorder_core.training.optimizer import policy_optimizer

    training = type("Settings", (), {"lr": 1.0, "betas": (0.9, 0.999)})
    made = policy(learner={**LEARNER, "learning_rate": 0.01})
    optimizer = policy_optimizer(made, training)
    assert optimizer is not None
    assert [group["lr"] for group in optimizer.param_groups] == [0.01]
    assert policy_optimizer(policy(), training) is None
    assert policy_optimizer(policy(learner="curve_bandit"), training) is None


def test_state_goes_into_a_fresh_policy_in_every_stage() -> None:
    for stop in (20, 25, 45, 60):
        for chosen in CASES:
            one, two = policy(seed=0, **chosen), policy(seed=1, **chosen)
            list(run(one, range(20, stop)))
            two.load_state_dict(one.state_dict())
            assert one.best().tolist() == two.best().tolist()
            assert one.orders_per_image == two.orders_per_image


# ------------------------------------------------------------------ input from outside


def problems(**chosen: object) -> dict[str, str]:
    training = type("Training", (), {"phases": PhasesSection(warm_up=0, learn=2)})
    facts = RunFacts(DataFacts(8, 8, 1), Grid(2, 2), 4, batch_size=4, positions="learned", training=training)
    return {problem.key: problem.message for problem in CurriculumSettings(**chosen).problems(facts)}


def test_problems_say_what_to_do() -> None:
    assert problems() == {}
    assert problems(start="row_major", end="hilbert", path="back", slots=2) == {}
    assert "5 draws do not fit a batch of 4" in problems(orders=5)["orders"]
    assert "name it as learner" in problems(start="learned")["start"]
    assert "name it as learner" in problems(end="learned_reversed")["end"]
    assert "thrown away" in problems(learner="reinforce", start="row_major")["learner"]
    assert "name another end" in problems(learner="reinforce", end="learned")["end"]
    assert "policy.prior" in problems(learner={"name": "reinforce", "prior": "hilbert"})["learner.prior"]
    assert "learns nothing itself" in problems(learner="curriculum")["learner"]
    assert "path: front or back" in problems(slots=2)["slots"]
    assert "4 slots, not 9" in problems(slots=9, path="front", start="hilbert")["slots"]
    assert "nothing would move" in problems(every=3, unit="epochs")["every"]
    assert problems(every=30, unit="steps") == {}
    assert "nothing would move" in problems(every=2, unit="epochs", learner="reinforce")["every"]
    assert "only random orders" in problems(orders=2, start="hilbert")["orders"]
    assert "get rarer" in problems(path="front")["path"]
    assert "same order" in problems(start="hilbert", end="hilbert")["end"]
    assert "learns nothing" in problems(learner="uniform")["learner"]


def test_a_word_is_a_way_to_begin_and_a_mapping_an_ordering() -> None:
    assert CurriculumSettings(start="learned", learner="reinforce").start == "learned"
    fixed = CurriculumSettings(start={"name": "random", "seed": 3})
    assert fixed.start == ComponentRef("ordering", "random", {"seed": 3})
    assert CurriculumSettings(**plain(fixed)) == fixed


def test_bad_builds_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="needs an order to start from"):
        Curriculum(CurriculumSettings(), context(GRID))
    with pytest.raises(UsageError, match=r"policy\.end: 'learned' needs a policy that learns"):
        policy(start="row_major", end="learned")

    class Learns:
        def fit(self, images: object, grid: Grid, generator: object) -> None: ...

    where = Context(GRID, prior_N=np.arange(24), resolve=lambda ref: Learns())
    with pytest.raises(UsageError, match="learns from images"):
        Curriculum(CurriculumSettings(start="hilbert"), where)


def test_an_order_from_a_file_can_be_the_start(tmp_path: Path) -> None:
    learned = np.random.default_rng(3).permutation(24).tolist()
    path = tmp_path / "order.json"
    path.write_text(json.dumps({"grid": {"rows": 4, "columns": 6, "frames": 1}, "permutation": learned}))
    made = policy(start={"name": "file", "path": str(path)}, end="row_major")
    assert made.draw(4, None, 1.0).perm_GN[0].tolist() == learned
    assert made.draw(4, None, 0.0).perm_GN[0].tolist() == list(range(24))


RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "curriculum").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_curriculum_gets_to_its_end(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.policy is not None
    assert recipe.policy.ref.name == "curriculum"
    grid = recipe.facts.grid
    prior_N = np.array(order_of(recipe.ordering.ref.name, grid))
    made = Catalogue.load().build(recipe.policy.ref, context(grid, prior_N=prior_N))
    assert made.best().tolist() == prior_N.tolist()
    list(run(made, range(20, 60), batch=64))
    assert made.best().tolist() == made._end().tolist()
