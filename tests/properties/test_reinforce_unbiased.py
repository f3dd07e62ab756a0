"""Every estimator of the policy reinforce, proved by enumeration: its mean over all draws is the exact gradient.

N = 3 patches, K orders, C curves, B images; a reward for each (image, order).
"""

from __future__ import annotations

import copy
from itertools import permutations, product

import numpy as np
import pytest
import torch
from reorder_reinforce.policy import Reinforce
from reorder_reinforce.settings import ReinforceSettings
from torch import Tensor

from reorder_core import Clock, Context, DataFacts, Grid, Outcome

ORDERS = torch.tensor(list(permutations(range(3))))
TAU = 0.6
CLOCK = Clock(step=5, steps_per_epoch=5, learn_start=0, learn_stop=10, total=10)


class Curve:
    def permutation(self, grid: Grid) -> np.ndarray:
        return np.array([2, 0, 1])


def policy(**settings: object) -> Reinforce:
    facts = DataFacts(height=1, width=3, channels=1, train=8)
    context = Context(Grid(1, 3), prior_N=np.array([1, 0, 2]), data=facts, resolve=lambda ref: Curve())
    made = Reinforce(ReinforceSettings(coefficients=2, **settings), context)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for values in made.parameters():
            values.copy_(torch.randn(values.shape, generator=generator) * 0.4)
        if settings.get("baseline") == "ema":
            made.baseline.mean.fill_(-0.7)  # type: ignore[union-attr]
            made.baseline.seen.fill_(True)  # type: ignore[union-attr]
        if made.image_average is not None:
            made.image_average.update(torch.arange(5), torch.rand(5, generator=generator, dtype=torch.float64))
    return made


def reward_table(batch: int, same_for_all: bool = False) -> Tensor:
    """[B, 6]: of each image under each of the 6 orders."""
    table = torch.rand(1 if same_for_all else batch, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return table.expand(batch, 6)


def number_of(perm_N: Tensor) -> int:
    return int((perm_N == ORDERS).all(1).nonzero()[0, 0])


def exact_gradient(made: Reinforce, table_B6: Tensor) -> list[Tensor]:
    """∇ Σ_(curve, order) p · mean reward, by summing over all of them."""
    expected = torch.zeros((), dtype=torch.float64)
    for curve in range(len(made.priors_CN)):
        curve_K = torch.full((6,), curve)
        log_prob = made._order_log_prob(curve_K, ORDERS, TAU) + made._curve_log_prob_C()[curve]
        expected = expected + (log_prob.exp() * table_B6.mean(0)).sum()
    return list(torch.autograd.grad(expected, list(made.parameters())))


def estimate(made: Reinforce, table_B6: Tensor, curve_K: Tensor, perm_KN: Tensor) -> list[Tensor]:
    """The gradient that one draw gives, as the training loop would see it (from a fresh copy of all state)."""
    state = copy.deepcopy(made.state_dict())
    draw = made.hand_out(len(table_B6), curve_K, perm_KN, TAU)
    rows = [draw.group_B] if draw.extra_MB is None else [draw.group_B, *draw.extra_MB]
    number_G = torch.tensor([number_of(perm_N) for perm_N in draw.perm_GN])
    image_B = torch.arange(len(table_B6))
    loss_MB = torch.stack([-table_B6[image_B, number_G[row_B]] for row_B in rows])
    step = made.observe(draw, Outcome(loss_MB, image_B, CLOCK))
    assert step.loss is not None
    grads = torch.autograd.grad(-step.loss, list(made.parameters()))
    made.load_state_dict(state)
    return list(grads)


def mean_estimate(made: Reinforce, table_B6: Tensor) -> list[Tensor]:
    """Over all tuples of K (curve, order), each with its probability: 36 for one curve and K = 2."""
    k, curves = made.settings.orders, len(made.priors_CN)
    stratified = made.settings.curve_draws == "stratified"
    choices = [[g % curves] if stratified else range(curves) for g in range(k)]
    total = [torch.zeros_like(values) for values in made.parameters()]
    for curve in product(*choices):
        curve_K = torch.tensor(curve)
        for numbers in product(range(6), repeat=k):
            perm_KN = ORDERS[list(numbers)]
            log_prob_K = made._order_log_prob(curve_K, perm_KN, TAU).detach()
            if not stratified:
                log_prob_K = log_prob_K + made._curve_log_prob_C()[curve_K].detach()
            for sum_, grad in zip(total, estimate(made, table_B6, curve_K, perm_KN), strict=True):
                sum_ += log_prob_K.sum().exp() * grad
    return total


def assert_unbiased(made: Reinforce, table_B6: Tensor) -> None:
    for ours, exact in zip(mean_estimate(made, table_B6), exact_gradient(made, table_B6), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("logits", ["patch", "dct"])
@pytest.mark.parametrize("baseline", ["leave_one_out", "ema", "none"])
@pytest.mark.parametrize("image_control", ["none", "mode_loss", "image_ema"])
def test_unbiased(logits: str, baseline: str, image_control: str) -> None:
    made = policy(orders=2, logits=logits, baseline=baseline, image_control=image_control)
    assert_unbiased(made, reward_table(4))


@pytest.mark.parametrize("baseline", ["leave_one_out", "ema", "none"])
def test_unbiased_with_several_orders_an_image(baseline: str) -> None:
    assert_unbiased(policy(orders=2, orders_per_image=2, baseline=baseline), reward_table(4))


def test_unbiased_with_two_of_three_orders_an_image() -> None:
    assert_unbiased(policy(orders=3, orders_per_image=2), reward_table(3))


@pytest.mark.parametrize("baseline", ["leave_one_out", "ema", "none"])
def test_unbiased_for_a_mixture_of_curves(baseline: str) -> None:
    assert_unbiased(policy(orders=2, baseline=baseline, curves=["hilbert"]), reward_table(4))


@pytest.mark.parametrize("baseline", ["leave_one_out", "ema", "none"])
def test_unbiased_for_stratified_curves(baseline: str) -> None:
    table_B6 = reward_table(4, same_for_all=True)  # a group's images do not change from tuple to tuple
    made = policy(orders=2, baseline=baseline, curves=["hilbert"], curve_draws="stratified")
    assert_unbiased(made, table_B6)


def test_unbiased_for_stratified_curves_on_the_same_images() -> None:
    made = policy(orders=2, orders_per_image=2, curves=["hilbert"], curve_draws="stratified")
    assert_unbiased(made, reward_table(3))


def antithetic_mean(made: Reinforce, table_B6: Tensor) -> Tensor:
    """Over all 4-tuples of two coupled pairs. Any coupling with the right marginals will do: half of the time the
    partner is a copy, half of the time it is independent."""
    curve_K = torch.zeros(4, dtype=torch.int64)
    p_6 = made._order_log_prob(torch.zeros(6, dtype=torch.int64), ORDERS, TAU).detach().exp()
    joint_66 = 0.5 * torch.diag(p_6) + 0.5 * p_6[:, None] * p_6[None, :]
    total = torch.zeros_like(made.logits.learned_CP)
    for a, b, a_pair, b_pair in product(range(6), repeat=4):
        (grad,) = estimate(made, table_B6, curve_K, ORDERS[[a, b, a_pair, b_pair]])
        total += joint_66[a, a_pair] * joint_66[b, b_pair] * grad
    return total


def test_unbiased_for_antithetic_pairs() -> None:
    made, table_B6 = policy(orders=4, antithetic=True), reward_table(4)
    (exact,) = exact_gradient(made, table_B6)
    torch.testing.assert_close(antithetic_mean(made, table_B6), exact, rtol=1e-5, atol=1e-7)


def test_a_baseline_that_reads_the_antithetic_partner_would_be_biased() -> None:
    made, table_B6 = policy(orders=4, antithetic=True), reward_table(4)
    made.baseline.apart_GG = ~torch.eye(4, dtype=torch.bool)  # type: ignore[union-attr]
    (exact,) = exact_gradient(made, table_B6)
    assert float((antithetic_mean(made, table_B6) - exact).abs().max()) > 1e-3


def test_the_papers_estimator_is_biased() -> None:
    """Sampled at τ, scored at 1 (mistake 2): not the gradient of anything it samples from."""
    made, table_B6 = policy(faithful="paper"), reward_table(2)
    with torch.no_grad():
        made.baseline.mean.fill_(-0.7)  # type: ignore[union-attr]
        made.baseline.seen.fill_(True)  # type: ignore[union-attr]
    logits_N = made.logits()[0].detach()
    sampled = torch.tensor([float(_prob(logits_N / TAU, perm_N)) for perm_N in ORDERS])
    mean = torch.zeros_like(made.logits.learned_CP)
    for number in range(6):
        (grad,) = estimate(made, table_B6, torch.zeros(1, dtype=torch.int64), ORDERS[[number]])
        mean += sampled[number] * grad
    honest = policy(orders=1, baseline="none", logits="patch")
    honest.load_state_dict(made.state_dict(), strict=False)
    (exact,) = exact_gradient(honest, table_B6)
    assert float((mean - exact).abs().max()) > 1e-2


def _prob(scores_N: Tensor, perm_N: Tensor) -> Tensor:
    p = torch.ones((), dtype=torch.float64)
    for slot in range(3):
        p = p * scores_N[perm_N[slot:]].softmax(0)[0]
    return p
