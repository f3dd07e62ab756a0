"""Plackett-Luce by enumeration: the law, its gradient, and extreme scores. N patches, G orders."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kendalltau
from torch import Tensor

from reorder_core.plackett_luce import (
    entropy_estimate,
    gumbel_top_k,
    kendall_tau,
    largest_entropy,
    mode,
    plackett_luce_log_prob,
    uniform_noise,
)

SCORES = st.lists(st.floats(-3, 3), min_size=1, max_size=5).map(lambda v: torch.tensor(v, dtype=torch.float64))


def every_order(n: int) -> Tensor:
    return torch.tensor(list(permutations(range(n))))


def twin(scores_N: Tensor, perm_N: Tensor) -> Tensor:
    """The definition, word for word, slot by slot: the legible twin."""
    total = scores_N.new_zeros(())
    for slot in range(len(perm_N)):
        left = scores_N[perm_N[slot:]]
        total = total + left[0] - left.logsumexp(0)
    return total


@given(SCORES)
@settings(max_examples=40, deadline=None)
def test_probabilities_sum_to_one_and_equal_the_twin(scores_N: Tensor) -> None:
    perm_GN = every_order(len(scores_N))
    log_prob_G = plackett_luce_log_prob(scores_N, perm_GN)
    assert float(log_prob_G.exp().sum()) == pytest.approx(1.0, abs=1e-12)
    expected_G = torch.stack([twin(scores_N, perm_N) for perm_N in perm_GN])
    torch.testing.assert_close(log_prob_G, expected_G, rtol=1e-12, atol=1e-12)


@given(SCORES)
@settings(max_examples=40, deadline=None)
def test_mean_of_the_score_function_is_zero(scores_N: Tensor) -> None:
    scores_N = scores_N.clone().requires_grad_()
    log_prob_G = plackett_luce_log_prob(scores_N, every_order(len(scores_N)))
    (grad_N,) = torch.autograd.grad((log_prob_G.detach().exp() * log_prob_G).sum(), scores_N)
    torch.testing.assert_close(grad_N, torch.zeros_like(grad_N), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("span", [1.0, 900.0])
def test_gradcheck(shared: bool, span: float) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (7,) if shared else (4, 7)
    scores = (torch.rand(shape, generator=generator, dtype=torch.float64) * span).requires_grad_()
    perm_GN = torch.stack([torch.randperm(7, generator=generator) for _ in range(4)])
    assert torch.autograd.gradcheck(lambda s: plackett_luce_log_prob(s, perm_GN), (scores,))


@pytest.mark.parametrize("span", [0.0, 1e-6, 1.0, 30.0, 100.0, 300.0, 590.0, 610.0, 5000.0])
@pytest.mark.parametrize("direction", ["likely", "unlikely", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_for_every_span(span: float, direction: str, dtype: torch.dtype) -> None:
    n = 196
    scores_N = torch.linspace(0, -span, n, dtype=dtype).requires_grad_()
    orders = {"likely": torch.arange(n), "unlikely": torch.arange(n).flip(0)}
    orders["mixed"] = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    perm_N = orders[direction]
    log_prob = plackett_luce_log_prob(scores_N, perm_N[None])[0]
    (grad_N,) = torch.autograd.grad(log_prob, scores_N)
    log_prob = log_prob.detach()
    wide_N = scores_N.detach().double().requires_grad_()
    expected = twin(wide_N, perm_N)
    (expected_grad_N,) = torch.autograd.grad(expected, wide_N)
    expected = expected.detach()
    tolerance = 1e-11 if dtype == torch.float64 else 1e-6
    assert log_prob.dtype == dtype
    assert float(log_prob) == pytest.approx(float(expected), rel=tolerance, abs=tolerance)
    torch.testing.assert_close(grad_N.double(), expected_grad_N, rtol=tolerance * 10, atol=tolerance * 10)


@pytest.mark.parametrize("antithetic", [False, True])
def test_sampled_law_is_the_scored_law(antithetic: bool) -> None:
    scores_N = torch.tensor([0.3, -1.0, 0.8, 0.0], dtype=torch.float64)
    draws = 24_000
    noise_GN = uniform_noise(draws, 4, torch.Generator().manual_seed(0), antithetic)
    perm_GN = gumbel_top_k(scores_N, noise_GN)
    half = draws // 2
    for part_GN in (perm_GN[:half], perm_GN[half:]):  # with pairs, each half is independent in itself
        code_G = (part_GN * torch.tensor([64, 16, 4, 1])).sum(1)
        orders = every_order(4)
        count = [int((code_G == int((order * torch.tensor([64, 16, 4, 1])).sum())).sum()) for order in orders]
        expected = plackett_luce_log_prob(scores_N, orders).exp() * half
        assert chisquare(count, expected.numpy() * (sum(count) / float(expected.sum()))).pvalue > 1e-3


def test_antithetic_pairs_oppose_each_other() -> None:
    noise_GN = uniform_noise(400, 16, torch.Generator().manual_seed(1), antithetic=True)
    perm_GN = gumbel_top_k(torch.zeros(16), noise_GN)
    tau = [float(kendall_tau(perm_GN[g : g + 1], perm_GN[g + 200])) for g in range(200)]
    assert sum(tau) / 200 == pytest.approx(-1.0), "with equal scores the opposite noise is the opposite order"


def test_noise_at_its_ends_gives_an_order() -> None:
    perm_GN = gumbel_top_k(torch.zeros(3), torch.tensor([[0.0, 1.0, 0.5]]))
    assert perm_GN.tolist() == [[1, 2, 0]]


@given(SCORES, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_mode_is_the_most_probable_order(scores_N: Tensor, seed: int) -> None:
    tie_break_N = torch.randperm(len(scores_N), generator=torch.Generator().manual_seed(seed))
    best = plackett_luce_log_prob(scores_N, mode(scores_N, tie_break_N)[None])
    assert float(best) >= float(plackett_luce_log_prob(scores_N, every_order(len(scores_N))).max()) - 1e-12
    assert mode(torch.zeros(len(scores_N)), tie_break_N).tolist() == tie_break_N.tolist()


def test_entropy_estimate_has_the_exact_entropy_as_its_mean() -> None:
    scores_N = torch.tensor([0.3, -1.0, 0.8, 0.0, 2.0], dtype=torch.float64)
    exact = -float((lambda lp: (lp.exp() * lp).sum())(plackett_luce_log_prob(scores_N, every_order(5))))
    perm_GN = gumbel_top_k(scores_N, uniform_noise(20_000, 5, torch.Generator().manual_seed(0)))
    assert float(entropy_estimate(plackett_luce_log_prob(scores_N, perm_GN))) == pytest.approx(exact, abs=0.03)
    uniform = plackett_luce_log_prob(torch.zeros(5, dtype=torch.float64), every_order(5))
    assert float(entropy_estimate(uniform)) == pytest.approx(largest_entropy(5)) == pytest.approx(math.log(120))


@given(st.permutations(range(9)), st.permutations(range(9)))
@settings(max_examples=40, deadline=None)
def test_kendall_tau_is_scipys(a: list[int], b: list[int]) -> None:
    ours = float(kendall_tau(torch.tensor([a]), torch.tensor(b)))
    expected = kendalltau(torch.tensor(a).argsort().numpy(), torch.tensor(b).argsort().numpy()).statistic
    assert ours == pytest.approx(float(expected), abs=1e-6)
