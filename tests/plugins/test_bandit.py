"""The room bandit: its arms, what it makes of noisy rewards, and what each policy finds on planted problems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_bandit.arms import arms
from reorder_bandit.batch import effects, share_out
from reorder_bandit.curve_bandit import CurveBandit
from reorder_bandit.evidence import Evidence
from reorder_bandit.evolution import Evolution, by_rank, comma_weights, nes_utilities
from reorder_bandit.random_search import RandomSearch
from reorder_bandit.settings import CurveBanditSettings, EvolutionSettings, RandomSearchSettings

from reorder_core import Clock, Context, DataFacts, Grid, Outcome, RunFacts, UnsupportedGrid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_policy, context
from reorder_core.permutation import unit_step_share
from reorder_core.settings import ComponentRef

GRIDS = [Grid(1, 1), Grid(1, 7), Grid(4, 6), Grid(5, 5)]
VARIANTS = ("flip_rows", "flip_columns", "transpose", "reverse")
POLICIES = {
    "curve_bandit": (CurveBandit, CurveBanditSettings),
    "random_search": (RandomSearch, RandomSearchSettings),
    "evolution": (Evolution, EvolutionSettings),
}
CASES = [
    ("curve_bandit", {}),
    ("curve_bandit", {"rule": "gradient"}),
    ("curve_bandit", {"orders_per_image": 3}),
    ("curve_bandit", {"rule": "gradient", "orders_per_image": 2, "variants": ()}),
    ("random_search", {}),
    ("random_search", {"orders_per_image": 2, "drop": 1.0}),
    ("evolution", {}),
    ("evolution", {"strategy": "comma", "orders": 5, "orders_per_image": 2}),
]
each_case = pytest.mark.parametrize(("name", "chosen"), CASES, ids=str)


def policy(name: str, grid: Grid, prior_N: np.ndarray | None = None, seed: int = 0, **chosen: object):
    cls, settings_cls = POLICIES[name]
    prior_N = np.random.default_rng(5).permutation(grid.size) if prior_N is None else prior_N
    return cls(settings_cls(**chosen), context(grid, prior_N=prior_N, seed=seed))


def orders_of(curve: str, grid: Grid) -> np.ndarray:
    return Catalogue.load().build(ComponentRef("ordering", curve), context(grid)).permutation(grid)


class Fixed:
    """An ordering with one grid: it cannot be turned, unless that is square."""

    def __init__(self, grid: Grid, order_N: np.ndarray) -> None:
        self.grid, self.order_N = grid, order_N

    def permutation(self, grid: Grid) -> np.ndarray:
        if grid != self.grid:
            raise UnsupportedGrid(f"only a grid of {self.grid}")
        return self.order_N


# ------------------------------------------------------------------ the contract


@each_case
def test_keeps_the_contract(name: str, chosen: dict) -> None:
    cls, settings_cls = POLICIES[name]
    check_policy(cls, settings_cls(**chosen), grid=Grid(3, 4), examples=4)


@pytest.mark.parametrize("name", POLICIES)
def test_is_installed_under_its_name(name: str) -> None:
    check_policy(name, grid=Grid(2, 3), examples=2)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@each_case
def test_starts_at_any_order_of_any_grid(name: str, chosen: dict, grid: Grid) -> None:
    for seed in range(3):
        prior_N = np.random.default_rng(seed).permutation(grid.size)
        made = policy(name, grid, prior_N, **chosen)
        assert made.best().tolist() == prior_N.tolist()
        draw = made.draw(16, None, 1.0)
        made.observe(draw, Outcome(torch.ones(made.orders_per_image, 16), torch.arange(16), Clock(5, 10, 0, 10, 10)))
        if chosen.get("strategy") != "comma":  # which takes the mean of some half, whatever they were worth
            assert made.best().tolist() == prior_N.tolist(), "rewards without a difference change nothing"


@each_case
def test_has_no_gradient_and_no_parameters(name: str, chosen: dict) -> None:
    made = policy(name, Grid(3, 4), **chosen)
    draw = made.draw(16, None, 0.5)
    step = made.observe(draw, Outcome(torch.rand(made.orders_per_image, 16), torch.arange(16), Clock(5, 10, 0, 10, 10)))
    assert step.loss is None
    assert not list(made.parameters())
    assert all(np.isfinite(value) for value in step.numbers().values())
    assert {"reward", "kendall_tau_to_prior"} <= set(step.numbers())


@pytest.mark.parametrize("name", ["curve_bandit", "evolution"])
def test_explores_less_and_less(name: str) -> None:
    made = policy(name, Grid(3, 4), schedule="linear")
    clocks = [Clock(step, steps_per_epoch=10, learn_start=20, learn_stop=60, total=100) for step in range(100)]
    heat = [made.temperature(clock) for clock in clocks]
    assert heat[:20] == [0.0] * 20
    assert heat[60:] == [0.0] * 40
    assert heat[20] == max(heat) > 0
    assert heat[40] == pytest.approx(heat[20] / 2)
    draw = made.draw(16, None, 0.0)
    assert {tuple(perm_N) for perm_N in draw.perm_GN.tolist()} == {tuple(made.best().tolist())}


# ------------------------------------------------------------------ arms


@pytest.mark.parametrize("grid", [Grid(4, 4), Grid(4, 6), Grid(1, 5), Grid(3, 4, 2)], ids=str)
def test_arms_are_different_orders(grid: Grid) -> None:
    prior_N = np.random.default_rng(0).permutation(grid.size)
    curves = [(name, Catalogue.load().build(ComponentRef("ordering", name), context(grid))) for name in ("row_major",)]
    found = arms(prior_N, curves, grid, VARIANTS)
    assert found.names[0] == "prior"
    assert found.orders_AN[0].tolist() == prior_N.tolist()
    assert len({tuple(order_N) for order_N in found.orders_AN.tolist()}) == len(found.names)
    assert np.array_equal(np.sort(found.orders_AN, axis=1), np.tile(np.arange(grid.size), (len(found.names), 1)))
    if grid == Grid(4, 4):
        # a raster in all eight positions of the square; read backwards it is one of them
        assert len(found.names) == 1 + 8
    if grid == Grid(1, 5):
        assert len(found.names) == 1 + 2


def test_variants_say_what_they_are() -> None:
    grid = Grid(3, 4)
    row_major = Catalogue.load().build(ComponentRef("ordering", "row_major"), context(grid))
    found = arms(np.arange(12), [("row", row_major)], grid, VARIANTS)
    by_name = dict(zip(found.names, found.orders_AN, strict=True))
    patch_RC = np.arange(12).reshape(3, 4)
    assert by_name["prior"].tolist() == list(range(12))
    assert by_name["row flip_columns"].tolist() == patch_RC[:, ::-1].reshape(-1).tolist()
    assert by_name["row flip_rows"].tolist() == patch_RC[::-1].reshape(-1).tolist()
    assert by_name["row reverse"].tolist() == list(range(12))[::-1]
    assert by_name["row transpose"].tolist() == orders_of("column_major", grid).tolist()
    plain = arms(np.arange(12)[::-1], [("row", row_major)], grid, ())
    assert plain.names == ("prior", "row")


def test_mirror_images_of_a_curve_without_jumps_have_none() -> None:
    grid = Grid(4, 6)
    snake = Catalogue.load().build(ComponentRef("ordering", "snake"), context(grid))
    found = arms(orders_of("row_major", grid), [("snake", snake)], grid, VARIANTS)
    assert len(found.names) > 8
    assert unit_step_share(found.orders_AN, grid).tolist()[1:] == [1.0] * (len(found.names) - 1)


def test_a_curve_that_cannot_be_turned_is_mirrored_only() -> None:
    grid = Grid(2, 3)
    order_N = np.array([0, 3, 1, 2, 5, 4])
    found = arms(np.arange(6), [("mine", Fixed(grid, order_N))], grid, VARIANTS)
    assert not [name for name in found.names if "transpose" in name]
    assert len(found.names) == 1 + 8
    with pytest.raises(UsageError, match=r"policy\.curves: 'mine' cannot be an arm here: only a grid of 2x2"):
        arms(np.arange(6), [("mine", Fixed(Grid(2, 2), order_N))], grid, VARIANTS)


# ------------------------------------------------------------------ what noisy rewards say


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_effects_are_exact_without_noise(seed: int, per_image: int) -> None:
    """Least squares finds the effects, however different images are where each is read in several orders."""
    generator = torch.Generator().manual_seed(seed)
    k, batch = 5, 20
    draw = share_out(torch.arange(k)[:, None], batch, per_image, generator)
    group_MB = draw.group_B[None] if per_image == 1 else torch.cat([draw.group_B[None], draw.extra_MB])
    effect_K = torch.randn(k, generator=generator, dtype=torch.float64)
    hard_B = torch.randn(batch, generator=generator, dtype=torch.float64) if per_image > 1 else torch.ones(batch)
    found_K = effects(effect_K[group_MB] + 10 * hard_B, group_MB, k)
    torch.testing.assert_close(found_K, effect_K - effect_K.mean(), rtol=0, atol=1e-8)


def test_evidence_is_not_fooled_by_when_an_arm_was_read() -> None:
    """Batches differ by 1 and 2, the arms by 0.1 a piece; the first arm and the last never meet in one batch."""
    evidence = Evidence(4, discount=1.0)
    effect_A = torch.tensor([0.3, 0.2, 0.1, 0.0], dtype=torch.float64)
    for batch, pair in enumerate([(0, 1), (1, 2), (2, 3)] * 200):
        arm_MB = torch.tensor(pair * 4)[None]
        evidence.add(effect_A[arm_MB] + (batch % 3) * 1.0, arm_MB)
    value_A = evidence.values()
    torch.testing.assert_close(value_A - value_A[0], effect_A - effect_A[0], rtol=0, atol=2e-3)


def test_evidence_knows_its_noise_and_its_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    effect_A = torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64)
    leads, errors = [], []
    for _ in range(500):
        evidence = Evidence(3, discount=1.0)
        for _ in range(5):
            arm_MB = torch.arange(12)[None] % 3
            noise_MB = 2.0 * torch.randn(1, 12, generator=generator, dtype=torch.float64)
            evidence.add(effect_A[arm_MB] + noise_MB, arm_MB)
        lead_A, error_A = evidence.against(0)
        leads.append(float(lead_A[1]))
        errors.append(float(error_A[1]))
    assert np.mean(errors) == pytest.approx(2.0 * np.sqrt(2 / 20), rel=0.05)
    assert np.std(leads) == pytest.approx(np.mean(errors), rel=0.2)
    assert np.mean(leads) == pytest.approx(0.5 * 20 / 21, abs=0.1)  # one read at the average is added to each arm's 20


def test_forgetting_an_arm_keeps_what_the_others_learned_through_it() -> None:
    """Arms 0 and 2 never met, but both met arm 1."""
    evidence = Evidence(3, discount=1.0)
    effect_A = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    for pair in [(0, 1), (1, 2)] * 500:
        arm_MB = torch.tensor(pair)[None]
        evidence.add(effect_A[arm_MB], arm_MB)
    evidence.forget(1)
    value_A = evidence.values()
    assert float(value_A[0] - value_A[2]) == pytest.approx(1.0, abs=0.02)
    assert float(value_A[1]) == 0.0
    assert float(evidence.reads_A[1]) == 0.0


def test_no_image_is_read_twice_in_one_order() -> None:
    for seed in range(5):
        draw = share_out(torch.arange(6)[:, None], 13, 4, torch.Generator().manual_seed(seed))
        assert draw.extra_MB is not None
        group_MB = torch.cat([draw.group_B[None], draw.extra_MB])
        assert all(len(set(groups)) == 4 for groups in group_MB.T.tolist())


def test_weights_of_ranks() -> None:
    for k in (2, 3, 8, 64):
        assert float(nes_utilities(k).sum()) == pytest.approx(0.0, abs=1e-12)
        assert float(comma_weights(k).sum()) == pytest.approx(1.0)
        assert bool((nes_utilities(k).diff() <= 0).all())
        assert int((comma_weights(k) > 0).sum()) == max(1, k // 2)
    weight_K = nes_utilities(4)
    found_K = by_rank(torch.tensor([0.1, 5.0, -3.0, 0.2], dtype=torch.float64), weight_K)
    assert found_K.tolist() == weight_K[[2, 0, 3, 1]].tolist()
    assert by_rank(torch.zeros(4, dtype=torch.float64), weight_K).tolist() == pytest.approx([0.0] * 4)


def test_the_direction_of_evolution_is_the_gradient_for_all_orders_of_three_patches() -> None:
    """With the reward itself in place of its rank, the mean step is σ² times the gradient of the smoothed reward."""
    reward = {order: float(value) for value, order in enumerate(itertools.permutations(range(3)))}
    generator = torch.Generator().manual_seed(0)
    logits_N = torch.tensor([0.2, 0.0, -0.1], dtype=torch.float64)
    noise_SN = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)

    def smoothed(logits_N: torch.Tensor) -> torch.Tensor:
        orders = (logits_N + 0.5 * noise_SN).argsort(dim=1, descending=True)
        code_S = orders @ torch.tensor([9, 3, 1])
        table = torch.zeros(27, dtype=torch.float64)
        for order, value in reward.items():
            table[order[0] * 9 + order[1] * 3 + order[2]] = value
        return table[code_S]

    step_N = (smoothed(logits_N)[:, None] * noise_SN).mean(0) / 0.5
    shift = 0.05 * torch.eye(3, dtype=torch.float64)
    slope_N = torch.stack([smoothed(logits_N + s).mean() - smoothed(logits_N - s).mean() for s in shift]) / 0.1
    torch.testing.assert_close(step_N, slope_N, rtol=0, atol=0.05)


# ------------------------------------------------------------------ what they find


def learn(made, reward, steps: int, noise: float = 0.0, hard: float = 0.0, batch: int = 32, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        clock = Clock(step, 100, 0, steps, steps)
        draw = made.draw(batch, None, made.temperature(clock))
        group_MB = draw.group_B[None] if draw.extra_MB is None else torch.cat([draw.group_B[None], draw.extra_MB])
        loss_MB = -reward(draw.perm_GN)[group_MB] + noise * torch.randn(group_MB.shape, generator=generator)
        loss_MB = loss_MB + hard * torch.randn(batch, generator=generator) + 3.0 * (1 - step / steps)
        made.observe(draw, Outcome(loss_MB, torch.arange(batch), clock))


def neighbours(grid: Grid):
    def reward(perm_GN: torch.Tensor) -> torch.Tensor:
        return torch.tensor(unit_step_share(perm_GN.numpy(), grid), dtype=torch.float32)

    return reward


def salient_last(patches: list[int]):
    def reward(perm_GN: torch.Tensor) -> torch.Tensor:
        return perm_GN.argsort(dim=1)[:, patches].float().mean(dim=1) / perm_GN.shape[1]

    return reward


@pytest.mark.parametrize("chosen", [{}, {"rule": "gradient"}, {"orders_per_image": 2}], ids=str)
def test_a_bandit_finds_a_curve_that_keeps_neighbours_together(chosen: dict) -> None:
    """While the losses fall by 3, thirty times the difference between a raster and a snake."""
    grid = Grid(4, 6)
    made = policy(
        "curve_bandit", grid, orders_of("row_major", grid), curves=("row_major", "snake", "diagonal"), **chosen
    )
    learn(made, neighbours(grid), steps=150, noise=0.1)
    assert unit_step_share(made.best().numpy(), grid) == 1.0
    assert made.names[made.best_arm()].startswith("snake")


def test_common_random_numbers_help_where_images_differ_more_than_orders() -> None:
    grid = Grid(4, 6)
    right = {}
    for per_image in (1, 2):
        found = [
            policy("curve_bandit", grid, seed=seed, curves=("row_major", "snake"), orders_per_image=per_image)
            for seed in range(6)
        ]
        for seed, made in enumerate(found):
            learn(made, neighbours(grid), steps=60, noise=0.02, hard=2.0, batch=16, seed=seed)
        right[per_image] = sum(made.names[made.best_arm()].startswith("snake") for made in found)
    assert right[2] == 6
    assert right[2] > right[1]


def test_random_search_keeps_what_is_surely_better() -> None:
    grid = Grid(3, 4)
    reward = salient_last([0, 1])
    made = policy("random_search", grid, np.arange(12))
    before = float(reward(made.best()[None]))
    learn(made, reward, steps=200, noise=0.1)
    assert float(reward(made.best()[None])) > before + 0.3


def test_random_search_does_not_take_luck_for_a_lead() -> None:
    """Rewards that do not depend on the order: challengers come and go, and none of them wins."""
    made = policy("random_search", Grid(3, 4), np.arange(12), confidence=3.5)
    learn(made, lambda perm_GN: torch.zeros(len(perm_GN)), steps=100, noise=1.0)
    assert made.best().tolist() == list(range(12))
    assert int(made.drawn) > 30


@pytest.mark.parametrize("strategy", ["antithetic", "comma"])
def test_evolution_moves_what_matters_to_the_end(strategy: str) -> None:
    grid = Grid(4, 4)
    made = policy("evolution", grid, np.arange(16), strategy=strategy)
    learn(made, salient_last([0, 1, 2]), steps=200, noise=0.1)
    assert sorted(made.best().tolist()[-4:])[:2] == [0, 1] or {0, 1, 2} <= set(made.best().tolist()[-5:])


# ------------------------------------------------------------------ input from outside


def problems(settings_cls: type, **chosen: object) -> dict[str, str]:
    facts = RunFacts(data=DataFacts(8, 8, 1), grid=Grid(2, 2), patch=4, batch_size=4, positions="learned")
    return {problem.key: problem.message for problem in settings_cls(**chosen).problems(facts)}


def test_problems_say_what_to_do() -> None:
    for _, settings_cls in POLICIES.values():
        assert problems(settings_cls, orders=4) == {}
        assert "8 orders do not fit a batch of 4" in problems(settings_cls)["orders"]
        assert "cannot be read in 5 of 4" in problems(settings_cls, orders=4, orders_per_image=5)["orders_per_image"]
    assert "name at least one curve" in problems(CurveBanditSettings, orders=4, curves=())["curves"]
    assert "named twice" in problems(CurveBanditSettings, orders=4, variants=("reverse", "reverse"))["variants"]
    assert "only rule: gradient" in problems(CurveBanditSettings, orders=4, step_size=0.1)["step_size"]
    assert "even number" in problems(EvolutionSettings, orders=3)["orders"]
    assert problems(EvolutionSettings, orders=3, strategy="comma") == {}


def test_bad_builds_are_usage_errors() -> None:
    grid = Grid(3, 4)
    for name, (cls, settings_cls) in POLICIES.items():
        with pytest.raises(UsageError, match=f"the policy {name} needs an order to start from"):
            cls(settings_cls(), context(grid))
        with pytest.raises(UsageError, match="8 orders do not fit a batch of 4"):
            policy(name, grid).draw(4, None, 1.0)
        with pytest.raises(UsageError, match="cannot be read in 9 of 8"):
            policy(name, grid, orders_per_image=9)
    with pytest.raises(UsageError, match="name at least one curve"):
        policy("curve_bandit", grid, curves=())


def test_a_curve_that_learns_from_images_is_refused() -> None:
    class Learns:
        def fit(self, images: object, grid: Grid, generator: object) -> None: ...

        def permutation(self, grid: Grid) -> np.ndarray:
            return np.arange(grid.size)

    where = Context(Grid(3, 4), prior_N=np.arange(12), resolve=lambda ref: Learns())
    with pytest.raises(UsageError, match="learns from images"):
        CurveBandit(CurveBanditSettings(curves=("hilbert",)), where)


def test_state_goes_into_a_fresh_policy() -> None:
    for name, chosen in CASES:
        one, two = (policy(name, Grid(4, 4), seed=seed, **chosen) for seed in (0, 1))
        learn(one, salient_last([3]), steps=10, noise=0.1)
        two.load_state_dict(one.state_dict())
        assert one.best().tolist() == two.best().tolist()
        for key, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[key]), key
