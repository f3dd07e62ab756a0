"""The room softsort: its policies' start, draws, groups, schedule, rounds, state, settings, and what they can reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reorder_softsort.policy import SoftOrderPolicy, SoftSort
from reorder_softsort.reference import softsort_matrix
from reorder_softsort.scores import standardised
from reorder_softsort.settings import ShuffleSoftSortSettings, SoftSortSettings
from reorder_softsort.shuffle import ShuffleSoftSort
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reorder_core import Clock, Context, DataFacts, Grid, Outcome, RunFacts, UsageError
from reorder_core.conformance import check_policy

GRID = Grid(4, 6)
POLICIES: dict[str, tuple[Any, Any]] = {
    "softsort": (SoftSort, SoftSortSettings),
    "shuffle_softsort": (ShuffleSoftSort, ShuffleSoftSortSettings),
}
BOTH = pytest.mark.parametrize("name", POLICIES)


def policy(name: str, grid: Grid = GRID, prior_N: np.ndarray | None = None, seed: int = 0, **given: object) -> Any:
    target, model = POLICIES[name]
    prior_N = np.random.default_rng(5).permutation(len(grid)) if prior_N is None else prior_N
    return target(model(**given), Context(grid, prior_N=prior_N, generator=torch.Generator().manual_seed(seed)))


def learn(made: SoftOrderPolicy, loss: Any, steps: int, tokens_BND: Tensor) -> Tensor:
    """The steps of a run; `loss` of tokens in slot order. Returns the best order at the end."""
    optimizer = torch.optim.AdamW(made.parameters(), lr=made.learning_rate, weight_decay=0.0)  # type: ignore[arg-type]
    for step in range(steps):
        clock = Clock(step, 10, 0, steps, steps)
        draw = made.draw(len(tokens_BND), None, made.temperature(clock))
        assert draw.soft is not None
        loss_B = loss(draw.soft(tokens_BND))
        loss_B.mean().backward()
        made.observe(draw, Outcome(loss_B.detach()[None], torch.arange(len(tokens_BND)), clock))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return made.best()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("softsort", {}),
        ("softsort", {"noise": 2.0, "orders": 4}),
        ("softsort", {"relaxation": "neuralsort", "temperature": 2.0}),
        ("softsort", {"relaxation": "lapsum", "noise": 1.0}),
        ("shuffle_softsort", {}),
        ("shuffle_softsort", {"noise": 0.5, "orders": 3, "shuffle": 0.4, "shuffle_end": 0.1}),
    ],
    ids=str,
)
def test_keeps_the_contract(name: str, given: dict[str, object]) -> None:
    check_policy(name, given, grid=Grid(4, 4), examples=3)


@BOTH
@given(st.sampled_from([Grid(1, 1), Grid(1, 7), GRID, Grid(14, 14)]), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_starts_at_any_order(name: str, grid: Grid, seed: int) -> None:
    prior_N = np.random.default_rng(seed).permutation(len(grid))
    made = policy(name, grid, prior_N)
    assert made.best().tolist() == prior_N.tolist()
    for temperature in (0.0, 1.0):
        assert made.draw(2, None, temperature).perm_GN.tolist() == [prior_N.tolist()]


@BOTH
def test_temperature_at_start_middle_end_and_outside(name: str) -> None:
    clocks = [Clock(step, steps_per_epoch=10, learn_start=20, learn_stop=60, total=100) for step in range(100)]
    made = policy(name, temperature=4.0, temperature_end=1.0)
    taus = [made.temperature(clock) for clock in clocks]
    assert taus[:20] == [0.0] * 20
    assert taus[60:] == [0.0] * 40
    assert (taus[20], taus[40]) == (4.0, 2.5)
    assert taus[59] == pytest.approx(1.0 + 3.0 / 40)
    triangular = policy(name, temperature=4.0, temperature_end=1.0, schedule="triangular")
    assert [triangular.temperature(clocks[step]) for step in (20, 40)] == [1.0, 4.0]


@BOTH
def test_scores_stand_one_slot_apart_whatever_was_learned(name: str) -> None:
    made = policy(name)
    with torch.no_grad():
        made.learned_N.copy_(torch.randn(24, generator=torch.Generator().manual_seed(1)) * 1e3 + 7e4)
    scores_N = standardised(made.learned_N)
    even_N = torch.arange(24.0, dtype=torch.float64)
    torch.testing.assert_close(scores_N.mean(), even_N.mean())
    torch.testing.assert_close(scores_N.std(), even_N.std())


def test_a_soft_draw_has_the_hard_value_and_the_gradient_of_the_dense_form() -> None:
    made = policy("softsort")
    tokens_BND = torch.randn(3, 24, 5, generator=torch.Generator().manual_seed(2), requires_grad=True)
    draw = made.draw(3, None, 2.0)
    hard_BND = draw.soft(tokens_BND)
    assert torch.equal(hard_BND, draw.layout(GRID).order(tokens_BND))
    weight_BND = torch.randn(3, 24, 5, generator=torch.Generator().manual_seed(3))
    patch_scores_N = torch.empty(24, dtype=torch.float64).scatter(0, made.prior_N, standardised(made.learned_N))
    dense_BND = softsort_matrix(patch_scores_N, 2.0).float() @ tokens_BND
    ours = torch.autograd.grad((hard_BND * weight_BND).sum(), (made.learned_N, tokens_BND))
    twin = torch.autograd.grad((dense_BND * weight_BND).sum(), (made.learned_N, tokens_BND))
    for one, two in zip(ours, twin, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@BOTH
def test_each_image_is_read_in_the_order_of_its_group_also_in_parts(name: str) -> None:
    made = policy(name, orders=3, noise=20.0)
    tokens_BND = torch.randn(8, 24, 2, generator=torch.Generator().manual_seed(4))
    draw = made.draw(8, None, made.common.temperature)
    assert len({tuple(perm_N) for perm_N in draw.perm_GN.tolist()}) == 3
    assert draw.group_B.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    expected_BND = draw.layout(GRID).order(tokens_BND)
    assert torch.equal(draw.soft(tokens_BND), expected_BND)
    for images in (slice(0, 5), slice(5, 8), slice(4, 5)):
        assert torch.equal(draw.part(images).soft(tokens_BND[images]), expected_BND[images])


@BOTH
def test_noise_falls_with_the_temperature(name: str) -> None:
    made = policy(name, orders=2, noise=5.0)
    assert made.draw(2, None, 0.0).perm_GN.tolist() == [made.best().tolist()] * 2
    assert made.draw(2, None, made.common.temperature).perm_GN[0].tolist() != made.best().tolist()


@BOTH
@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-6])
def test_a_tiny_temperature_is_the_hard_order_and_finite(name: str, temperature: float) -> None:
    made = policy(name, Grid(14, 14))
    tokens_BND = torch.randn(2, 196, 3, requires_grad=True)
    draw = made.draw(2, None, temperature)
    draw.soft(tokens_BND).square().sum().backward()
    torch.testing.assert_close(tokens_BND.grad, 2 * tokens_BND.detach(), rtol=1e-5, atol=1e-6)
    assert made.learned_N.grad is None or bool(made.learned_N.grad.isfinite().all())


@BOTH
def test_metrics_say_how_hard_the_order_is(name: str) -> None:
    made = policy(name)
    outcome = Outcome(torch.zeros(1, 2), torch.arange(2), Clock(5, 10, 0, 10, 10))
    hot, cold, frozen = (made.observe(made.draw(2, None, tau), outcome) for tau in (5.0, 0.05, 0.0))
    assert hot.loss is None
    assert hot.numbers()["sharpness"] < 0.2 < 0.99 < cold.numbers()["sharpness"] <= frozen.numbers()["sharpness"] == 1.0
    assert hot.numbers()["row_collisions"] == 0.0
    assert hot.numbers()["gap"] == pytest.approx(1.0)
    assert hot.numbers()["kendall_tau_to_prior"] == 1.0


def test_equal_scores_are_counted_as_a_collision() -> None:
    made = policy("softsort")
    with torch.no_grad():
        made.learned_N[3] = -1.0  # ramp 23, 22, 21, 20, 19: the place of the next one
    step = made.observe(made.draw(2, None, 0.5), Outcome(torch.zeros(1, 2), torch.arange(2), Clock(5, 10, 0, 10, 10)))
    assert step.numbers()["row_collisions"] == 1.0


def test_a_round_ends_after_its_steps_and_keeps_its_order() -> None:
    made = policy("shuffle_softsort", steps=3, learning_rate=2.0)
    tokens_BND = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(6))
    line_N, kept = made.line_N.clone(), made.order_N.clone()
    for step in range(3):
        assert torch.equal(made.line_N, line_N)
        assert torch.equal(made.order_N, kept)
        draw = made.draw(2, None, 1.0)
        (draw.soft(tokens_BND) * torch.arange(24.0)[:, None]).sum().backward()
        before = made.best()
        made.observe(draw, Outcome(torch.zeros(1, 2), torch.arange(2), Clock(step, 10, 0, 10, 10)))
        assert made.learned_N.grad is None, "the run's optimiser must not take the step again"
    assert not torch.equal(made.line_N, line_N)
    assert not torch.equal(made.order_N, kept)
    assert not bool(made.learned_N.any())
    assert int(made.taken) == 0
    assert made.best().tolist() == made.order_N.tolist()
    assert before.sort().values.tolist() == list(range(24))


def test_the_steps_of_a_round_are_those_of_a_new_adam() -> None:
    made = policy("shuffle_softsort", steps=4, learning_rate=0.2)
    twin = torch.nn.Parameter(torch.zeros(24))
    adam = torch.optim.Adam([twin], lr=0.2)
    draw = torch.Generator().manual_seed(3)
    for step in range(3):
        grad_N = torch.randn(24, generator=draw)
        made.learned_N.grad, twin.grad = grad_N.clone(), grad_N.clone()
        made.observe(made.draw(2, None, 1.0), Outcome(torch.zeros(1, 2), torch.arange(2), Clock(step, 10, 0, 10, 10)))
        adam.step()
        torch.testing.assert_close(made.learned_N, twin)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_line_is_shuffled_as_far_as_it_should_be(share: float) -> None:
    made = policy("shuffle_softsort", Grid(10, 10), shuffle=share, shuffle_end=share)
    moved_N = (made.line_N - torch.arange(100)).abs()
    assert int(moved_N.max()) <= 101 * share
    assert bool(moved_N.any()) == (share > 0)


def neighbours(sequence_BND: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens of an 8 x 8 grid of slots, and those below and to the right of them."""
    grid_BHWD = sequence_BND.unflatten(1, (8, 8))
    return grid_BHWD[:, :-1], grid_BHWD[:, 1:], grid_BHWD[:, :, :-1], grid_BHWD[:, :, 1:]


def apart(sequence_BND: Tensor) -> float:
    """Mean squared distance of neighbours."""
    above, below, left, right = neighbours(sequence_BND)
    return float((above - below).square().mean() + (left - right).square().mean())


def unlike(sequence_BND: Tensor) -> Tensor:
    """Minus the mean product of neighbours, [B]: a loss that, other than their distance, gains nothing by blurring."""
    above, below, left, right = neighbours(sequence_BND)
    return -(above * below).mean((1, 2, 3)) - (left * right).mean((1, 2, 3))


def test_shuffled_lines_reach_two_dimensional_orders_that_one_line_cannot() -> None:
    """Barthel et al., section II: 64 points of the plane laid out on a grid so that neighbours are near.

    One line of scores only lets a patch pass its neighbours in the sequence, and those below it in the grid are eight
    slots away. The best of three temperatures of the one line is compared, at the same number of steps.
    """
    tokens_BND = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(0))
    tokens_BND -= tokens_BND.mean(1, keepdim=True)

    def reached(name: str, **given: object) -> float:
        made = policy(name, Grid(8, 8), np.arange(64), **given)
        return apart(tokens_BND[:, learn(made, unlike, 400, tokens_BND)]) / apart(tokens_BND)

    shuffled = reached("shuffle_softsort")
    one_line = min(reached("softsort", temperature=tau) for tau in (1.0, 4.0, 16.0))
    assert shuffled < 0.25
    assert shuffled < 0.7 * one_line


@pytest.mark.parametrize("relaxation", ["softsort", "lapsum"])
def test_learns_to_read_the_marked_patches_last(relaxation: str) -> None:
    tokens_1N1 = torch.zeros(1, 16, 1)
    tokens_1N1[0, [1, 6, 9, 12]] = 1.0
    made = policy("softsort", Grid(4, 4), np.arange(16), temperature=4.0, relaxation=relaxation)
    best_N = learn(made, lambda sequence: -sequence[..., 0] @ torch.arange(16.0), 150, tokens_1N1)
    mean_slot = float(best_N.argsort()[[1, 6, 9, 12]].float().mean())
    assert mean_slot == 13.5 if relaxation == "lapsum" else mean_slot > 12, "13.5 is the best there is, 7 the start"


@pytest.mark.parametrize(
    ("name", "given"), [("softsort", {}), ("softsort", {"relaxation": "lapsum"}), ("shuffle_softsort", {})], ids=str
)
def test_long_sequences_learn(name: str, given: dict[str, object]) -> None:
    """N = 4,096: the matrix alone would be 64 MiB for each order; no tensor of that size is made on the way."""
    made = policy(name, Grid(64, 64), **given)
    tokens_BND = torch.randn(2, 4096, 8, generator=torch.Generator().manual_seed(1))
    largest = _LargestTensor()
    with largest:
        best_N = learn(made, lambda sequence: (sequence[:, 1:] - sequence[:, :-1]).square().mean((1, 2)), 5, tokens_BND)
    assert best_N.sort().values.tolist() == list(range(4096))
    assert best_N.tolist() != made.prior_N.tolist()
    assert largest.values < 4096**2 // 16


class _LargestTensor(TorchDispatchMode):
    """How many values the largest tensor has that an operator gives."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.values = max(self.values, value.numel())
        return result


def problems(name: str, grid: Grid = GRID, **given: object) -> dict[str, str]:
    facts = RunFacts(data=DataFacts(8, 8, 1), grid=grid, patch=4, batch_size=4, positions="learned")
    return {p.key: p.message for p in POLICIES[name][1](**given).problems(facts)}


@BOTH
def test_problems_say_what_to_do(name: str) -> None:
    assert problems(name) == {}
    assert "8 orders do not fit a batch of 4" in problems(name, orders=8, noise=1.0)["orders"]
    assert "all 2 orders are the same" in problems(name, orders=2)["orders"]
    assert "at most temperature" in problems(name, temperature=0.5, temperature_end=0.6)["temperature_end"]
    for key in ("temperature", "temperature_end", "learning_rate"):
        with pytest.raises(ValidationError, match="greater than 0"):
            POLICIES[name][1](**{key: 0.0})


def test_a_sequence_too_long_for_neuralsort_says_what_it_needs_and_what_serves() -> None:
    message = problems("softsort", Grid(96, 96), relaxation="neuralsort")["relaxation"]
    assert "0.3 GiB" in message
    assert "use relaxation: softsort" in message
    assert problems("softsort", Grid(64, 64), relaxation="neuralsort") == {}
    assert problems("softsort", Grid(96, 96), relaxation="lapsum") == {}


def test_bad_builds_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="needs an order to start from"):
        SoftSort(SoftSortSettings(), Context(GRID))
    with pytest.raises(UsageError, match="all 2 orders are the same"):
        policy("softsort", orders=2)
    with pytest.raises(UsageError, match="do not fit a batch of 4"):
        policy("shuffle_softsort", orders=8, noise=1.0).draw(4, None, 1.0)
