"""What `estimator: rank` ascends, by enumeration: the covariance of reward and earliness; when that is the gradient.

N patches, G = N! orders, K drawn orders, B images; x is the earliness of each patch, R the reward of each order.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_reinforce.earliness import earliness, rank_evidence
from reorder_reinforce.policy import Reinforce
from reorder_reinforce.settings import ReinforceSettings
from torch import Tensor

from reorder_core import Clock, Context, DataFacts, Grid, Outcome
from reorder_core.plackett_luce import plackett_luce_log_prob

TAU = 0.6
CLOCK = Clock(step=5, steps_per_epoch=5, learn_start=0, learn_stop=10, total=10)
SCORES = st.integers(2, 4).flatmap(lambda n: st.lists(st.floats(-2, 2), min_size=n, max_size=n))
SEEDS = st.integers(0, 10_000)


def every_order(patches: int) -> Tensor:
    return torch.tensor(list(permutations(range(patches))))


def reward_table(count: int, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(scores_N: Tensor, reward_G: Tensor) -> Tensor:
    """Cov(R, x) under the Plackett-Luce law of the scores, [N]."""
    perm_GN = every_order(len(scores_N))
    p_G = plackett_luce_log_prob(scores_N, perm_GN).exp()
    x_GN = earliness(perm_GN)
    return (p_G * (reward_G - p_G @ reward_G)) @ (x_GN - p_G @ x_GN)


def gradient(scores_N: Tensor, reward_G: Tensor) -> Tensor:
    """∇ E[R] in the Plackett-Luce scores, [N]."""
    scores_N = scores_N.clone().requires_grad_()
    expected = plackett_luce_log_prob(scores_N, every_order(len(scores_N))).exp() @ reward_G
    return torch.autograd.grad(expected, scores_N)[0]


def cosine(a_N: Tensor, b_N: Tensor) -> float:
    return float(a_N @ b_N / (a_N.norm() * b_N.norm()))


def test_earliness_falls_with_the_slot() -> None:
    x_KN = earliness(torch.tensor([[2, 0, 1], [0, 1, 2]]))
    assert x_KN[0].argsort(descending=True).tolist() == [2, 0, 1]
    torch.testing.assert_close(x_KN.sum(1), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(x_KN.square().mean(1), torch.ones(2, dtype=torch.float64))
    assert earliness(torch.zeros(2, 1, dtype=torch.int64)).tolist() == [[0.0], [0.0]]


def test_gradient_of_the_evidence_is_the_earliness() -> None:
    logits_KN = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    (grad_KN,) = torch.autograd.grad(rank_evidence(logits_KN, every_order(3)).sum(), logits_KN)
    torch.testing.assert_close(grad_KN, earliness(every_order(3)))


@given(SCORES, SEEDS)
@settings(max_examples=60, deadline=None)
def test_is_the_exact_gradient_of_the_tilted_law(values: list[float], seed: int) -> None:
    """∂/∂η at η = 0 of E[R] under p(perm) · exp(Σ η · x) / Z(η), whatever the scores and the reward."""
    scores_N = torch.tensor(values, dtype=torch.float64)
    perm_GN = every_order(len(scores_N))
    reward_G = reward_table(len(perm_GN), seed)
    tilt_N = torch.zeros_like(scores_N, requires_grad=True)
    log_p_G = (plackett_luce_log_prob(scores_N, perm_GN) + earliness(perm_GN) @ tilt_N).log_softmax(0)
    (exact_N,) = torch.autograd.grad(log_p_G.exp() @ reward_G, tilt_N)
    torch.testing.assert_close(covariance(scores_N, reward_G), exact_N, rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=2), SEEDS)
@settings(max_examples=30, deadline=None)
def test_with_two_patches_it_is_twice_the_gradient(values: list[float], seed: int) -> None:
    scores_N, reward_G = torch.tensor(values, dtype=torch.float64), reward_table(2, seed)
    expected_N = 2.0 * gradient(scores_N, reward_G)
    torch.testing.assert_close(covariance(scores_N, reward_G), expected_N, rtol=1e-9, atol=1e-12)


def linear_reward(patches: int, seed: int) -> Tensor:
    """Σ weight · slot, as salient_last and every other reward in which each patch only wants to be early or late."""
    return earliness(every_order(patches)) @ reward_table(patches, seed)


@pytest.mark.parametrize("patches", [3, 4])
def test_at_equal_scores_it_is_parallel_to_the_gradient_of_linear_rewards(patches: int) -> None:
    scores_N = torch.zeros(patches, dtype=torch.float64)
    for seed in range(20):
        reward_G = linear_reward(patches, seed)
        assert cosine(covariance(scores_N, reward_G), gradient(scores_N, reward_G)) == pytest.approx(1.0, abs=1e-12)


@given(SCORES, SEEDS)
@settings(max_examples=200, deadline=None)
def test_points_uphill_for_linear_rewards(values: list[float], seed: int) -> None:
    scores_N = torch.tensor(values, dtype=torch.float64)
    reward_G = linear_reward(len(scores_N), seed)
    assert cosine(covariance(scores_N, reward_G), gradient(scores_N, reward_G)) > 0.2


def test_does_not_point_uphill_for_every_reward() -> None:
    """Among rewards that are no more than noise on the six orders of three patches there are some where it is wrong."""
    scores_N = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    found = [cosine(covariance(scores_N, r), gradient(scores_N, r)) for r in (reward_table(6, s) for s in range(500))]
    wrong = sum(value < 0 for value in found) / len(found)
    assert 0.0 < wrong < 0.1


def policy(patches: int, **given_settings: object) -> Reinforce:
    facts = DataFacts(height=1, width=patches, channels=1, train=8)
    context = Context(Grid(1, patches), prior_N=np.arange(patches)[::-1].copy(), data=facts)
    made = Reinforce(ReinforceSettings(estimator="rank", coefficients=2, **given_settings), context)  # type: ignore[arg-type]
    with torch.no_grad():
        values = made.logits.learned_CP
        values.copy_(torch.randn(values.shape, generator=torch.Generator().manual_seed(1)) * 0.4)
    return made


def estimate(made: Reinforce, table_BG: Tensor, orders_GN: Tensor, numbers: tuple[int, ...]) -> Tensor:
    curve_K = torch.zeros(len(numbers), dtype=torch.int64)
    draw = made.hand_out(len(table_BG), curve_K, orders_GN[list(numbers)], TAU)
    rows = [draw.group_B] if draw.extra_MB is None else [draw.group_B, *draw.extra_MB]
    number_G = torch.tensor([int((perm_N == orders_GN).all(1).nonzero()[0, 0]) for perm_N in draw.perm_GN])
    image_B = torch.arange(len(table_BG))
    loss_MB = torch.stack([-table_BG[image_B, number_G[row_B]] for row_B in rows])
    step = made.observe(draw, Outcome(loss_MB, image_B, CLOCK))
    assert step.loss is not None
    return torch.autograd.grad(-step.loss, made.logits.learned_CP)[0][0].double()


def assert_mean_is_the_covariance(made: Reinforce, patches: int, batch: int) -> None:
    orders_GN = every_order(patches)
    table_BG = torch.stack([reward_table(len(orders_GN), seed) for seed in range(batch)])
    scores_N = made.logits()[0].detach() / TAU
    p_G = plackett_luce_log_prob(scores_N, orders_GN).exp()
    mean_P = torch.zeros(made.logits.learned_CP.shape[1], dtype=torch.float64)
    for numbers in product(range(len(orders_GN)), repeat=made.settings.orders):
        mean_P += p_G[list(numbers)].prod() * estimate(made, table_BG, orders_GN, numbers)
    expected_N = covariance(scores_N, table_BG.mean(0))
    basis_NP = made.logits.basis_NP
    expected_P = expected_N if basis_NP is None else expected_N @ basis_NP
    torch.testing.assert_close(mean_P, expected_P, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("logits", ["patch", "dct"])
@pytest.mark.parametrize("image_control", ["none", "mode_loss"])
def test_mean_over_all_draws_is_the_covariance(logits: str, image_control: str) -> None:
    assert_mean_is_the_covariance(policy(3, orders=2, logits=logits, image_control=image_control), 3, batch=4)


def test_mean_over_all_draws_of_four_patches() -> None:
    assert_mean_is_the_covariance(policy(4, orders=2, logits="patch"), 4, batch=2)


def test_mean_over_all_draws_with_several_orders_an_image() -> None:
    assert_mean_is_the_covariance(policy(3, orders=3, orders_per_image=2, logits="patch"), 3, batch=3)


def test_mean_over_antithetic_pairs() -> None:
    """Any coupling with the right marginals will do: half of the time the partner is a copy, else it is independent."""
    made, orders_GN = policy(3, orders=4, antithetic=True, logits="patch"), every_order(3)
    table_BG = torch.stack([reward_table(6, seed) for seed in range(4)])
    scores_N = made.logits()[0].detach() / TAU
    p_G = plackett_luce_log_prob(scores_N, orders_GN).exp()
    joint_GG = 0.5 * torch.diag(p_G) + 0.5 * p_G[:, None] * p_G[None, :]
    mean_N = torch.zeros(3, dtype=torch.float64)
    for a, b, a_pair, b_pair in product(range(6), repeat=4):
        chance = joint_GG[a, a_pair] * joint_GG[b, b_pair]
        mean_N += chance * estimate(made, table_BG, orders_GN, (a, b, a_pair, b_pair))
    torch.testing.assert_close(mean_N, covariance(scores_N, table_BG.mean(0)), rtol=1e-5, atol=1e-6)


def test_says_nothing_at_temperature_zero() -> None:
    made = policy(3, orders=2, logits="patch")
    draw = made.draw(4, None, 0.0)
    assert made.observe(draw, Outcome(torch.rand(1, 4), torch.arange(4), CLOCK)).loss is None
