"""Gumbel-Sinkhorn by enumeration: sums, the mode, the law of hardened draws; values and gradients against the twin.

N slots and patches, G matrices, P permutations (all N! of them).
"""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import reorder_sinkhorn.sinkhorn as operator
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_sinkhorn.policy import GumbelSinkhorn, gumbel_noise
from reorder_sinkhorn.reference import sinkhorn_reference
from reorder_sinkhorn.settings import GumbelSinkhornSettings
from reorder_sinkhorn.sinkhorn import sinkhorn
from reorder_sinkhorn.soft_order import harden
from scipy.stats import chi2_contingency
from torch import Tensor

from reorder_core import Context, Grid


def scores_of(size: int, seed: int, temperature: float = 1.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(size, size, generator=draw, dtype=torch.float64) / temperature


def every_order(size: int) -> Tensor:
    return torch.tensor(list(permutations(range(size))))


def total_P(scores_NN: Tensor) -> Tensor:
    """⟨P, X⟩ of every permutation."""
    perm_PN = every_order(len(scores_NN))
    return scores_NN.gather(1, perm_PN.T).sum(0)


SIZES, SEEDS = st.integers(1, 4), st.integers(0, 10_000)


@given(SIZES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_rows_and_columns_sum_to_one(size: int, seed: int) -> None:
    soft_NN = sinkhorn(scores_of(size, seed), 400)
    torch.testing.assert_close(soft_NN.sum(0), torch.ones(size, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(soft_NN.sum(1), torch.ones(size, dtype=torch.float64), rtol=0, atol=1e-6)
    assert float(soft_NN.min()) >= 0.0


@given(st.integers(1, 64), SEEDS, st.floats(1e-4, 10.0))
@settings(max_examples=30, deadline=None)
def test_columns_sum_to_one_after_any_iteration_at_any_temperature(size: int, seed: int, temperature: float) -> None:
    for iterations in (1, 7):
        soft_NN = sinkhorn(scores_of(size, seed, temperature).float(), iterations)
        torch.testing.assert_close(soft_NN.sum(0), torch.ones(size), rtol=0, atol=1e-4)


@given(SIZES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_hardening_finds_the_best_of_all_permutations(size: int, seed: int) -> None:
    scores_NN = scores_of(size, seed)
    assert harden(scores_NN).tolist() == every_order(size)[total_P(scores_NN).argmax()].tolist()


@given(SIZES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_hardening_the_scores_or_the_soft_matrix_is_one_order(size: int, seed: int) -> None:
    """log S and X differ by a number for each row and column, whatever the iterations."""
    scores_NN = scores_of(size, seed)
    for iterations in (1, 5):
        assert torch.equal(harden(sinkhorn(scores_NN, iterations).log()), harden(scores_NN))


@given(SIZES, SEEDS)
@settings(max_examples=20, deadline=None)
def test_soft_becomes_hard_as_the_temperature_falls(size: int, seed: int) -> None:
    """Theorem 1 of Mena et al.: S(X / τ) tends to the best permutation.

    log S(X / τ) is X / τ but for rows and columns, so twice that is a start at τ / 2 that is close to its limit.
    """
    scores_NN = scores_of(size, seed)
    best = total_P(scores_NN).sort(descending=True).values
    gap = 1.0 if size == 1 else float(best[0] - best[1])
    hard_NN = torch.eye(size, dtype=torch.float64)[harden(scores_NN)]
    log_NN, distances = scores_NN / (2 * gap), []
    for _ in range(7):  # from τ = gap down to gap / 64
        soft_NN = sinkhorn(2 * log_NN, 400)
        log_NN = soft_NN.clamp(min=1e-200).log()
        distances.append(float((soft_NN - hard_NN).abs().max()))
    assert distances[-1] < 1e-4
    assert distances[-1] <= distances[0]
    assert torch.equal(soft_NN.argmax(1), harden(scores_NN))


@given(SEEDS, st.floats(0.5, 5.0))
@settings(max_examples=20, deadline=None)
def test_two_patches_have_a_closed_form(seed: int, temperature: float) -> None:
    x = scores_of(2, seed)
    expected = torch.sigmoid((x[0, 0] + x[1, 1] - x[0, 1] - x[1, 0]) / (2 * temperature))
    assert float(sinkhorn(x / temperature, 4000)[0, 0]) == pytest.approx(float(expected), abs=1e-7)


@given(SIZES, SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_limit_maximises_score_and_entropy(size: int, seed: int) -> None:
    """No doubly stochastic matrix in reach of it has more ⟨P, X⟩ + H(P): mixtures of all permutations."""
    scores_NN = scores_of(size, seed)

    def value(soft_NN: Tensor) -> float:
        return float((soft_NN * scores_NN).sum() + torch.special.entr(soft_NN).sum())

    soft_NN, matrix_PNN = sinkhorn(scores_NN, 2000), torch.eye(size, dtype=torch.float64)[every_order(size)]
    rng = np.random.default_rng(seed)
    for _ in range(20):
        weight_P = torch.from_numpy(rng.dirichlet(np.full(len(matrix_PNN), 0.3)))
        assert value(soft_NN) >= value((weight_P[:, None, None] * matrix_PNN).sum(0)) - 1e-6


def policy(size: int, seed: int, **given: object) -> GumbelSinkhorn:
    context = Context(
        Grid(1, size), prior_N=np.arange(size)[::-1].copy(), generator=torch.Generator().manual_seed(seed)
    )
    made = GumbelSinkhorn(GumbelSinkhornSettings(**given), context)  # type: ignore[arg-type]
    with torch.no_grad():
        for number, values in enumerate(made.parameters()):
            noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(number))
            values.copy_(noise)
    return made


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("parametrisation", ["full", "low_rank"])
def test_every_draw_is_the_best_permutation_of_its_noisy_logits(size: int, parametrisation: str) -> None:
    made = policy(size, 3, parametrisation=parametrisation, orders=50, noise=0.7)
    noise = torch.Generator().manual_seed(3)
    for perm_N in made.draw(50, None, 1.0).perm_GN:
        noisy_NN = made.logits().detach() + 0.7 * gumbel_noise(size, noise)
        assert perm_N.tolist() == every_order(size)[total_P(noisy_NN.double()).argmax()].tolist()


def test_two_patches_are_drawn_by_the_law_of_two_logistic_variables() -> None:
    """M(X + ε) is the identity where a sum of two logistic variables is above −δ: e^δ (e^δ − 1 − δ) / (e^δ − 1)²."""
    draws = 4000
    made = policy(2, 0, orders=draws, iterations=1, noise=0.8)
    x = made.logits().detach().double()
    delta = float(x[0, 0] + x[1, 1] - x[0, 1] - x[1, 0]) / 0.8
    expected = math.exp(delta) * (math.exp(delta) - 1 - delta) / (math.exp(delta) - 1) ** 2
    found = float((made.draw(draws, None, 1.0).perm_GN[:, 0] == 0).double().mean())
    assert 0.02 < expected < 0.98, "the test must not be trivial"
    assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


@pytest.mark.parametrize("size", [3, 4])
def test_marginals_of_draws_are_those_of_brute_force(size: int) -> None:
    """Against another generator's noise and the best of all permutations: counts of (slot, patch), and of orders."""
    draws = 3000
    made = policy(size, 1, orders=draws, iterations=1)
    perm_GN = made.draw(draws, None, 1.0).perm_GN
    logits = made.logits().detach().double().numpy()
    noisy_GNN = logits + np.random.default_rng(2).gumbel(size=(4 * draws, size, size))
    order_PN = every_order(size).numpy()
    totals_GP = noisy_GNN[:, np.arange(size)[None], order_PN].sum(-1)
    brute_GN = order_PN[totals_GP.argmax(1)]
    for slot in range(size):
        counts = [np.bincount(order_GN[:, slot], minlength=size) for order_GN in (perm_GN.numpy(), brute_GN)]
        assert chi2_contingency(np.array(counts)).pvalue > 1e-3
    numbers = [(order_GN * 10 ** np.arange(size)).sum(1) for order_GN in (perm_GN.numpy(), brute_GN)]
    names = np.unique(np.concatenate(numbers))
    counts = [[int((number == name).sum()) for name in names] for number in numbers]
    assert chi2_contingency(np.array(counts)).pvalue > 1e-3


def value_and_gradient(form, scores: Tensor, weights: Tensor, iterations: int) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    scores = scores.clone().requires_grad_()
    soft = form(scores, iterations)
    (grad,) = torch.autograd.grad((soft * weights.to(soft)).sum(), scores)
    return soft.detach(), grad


@pytest.mark.parametrize("size", [1, 2, 5, 33, 150])
@pytest.mark.parametrize("temperature", [3.0, 0.3, 0.03, 1e-3])
def test_equals_the_twin(size: int, temperature: float) -> None:
    """150 rows are finished in two blocks; 0.001 is far below what float32's exponentials can hold."""
    scores_NN, weights_NN = scores_of(size, 0, temperature), scores_of(size, 1)
    for iterations in (1, 2, 20):
        expected = value_and_gradient(sinkhorn_reference, scores_NN, weights_NN, iterations)
        for dtype, near in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
            found = value_and_gradient(sinkhorn, scores_NN.to(dtype), weights_NN, iterations)
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == dtype
                torch.testing.assert_close(one.double(), other, rtol=0, atol=near)


@pytest.mark.parametrize("temperature", [1e-3, 1e-5, 1e-7])
def test_no_temperature_underflows(temperature: float) -> None:
    """Scores in float32 that span up to 10⁸, and rows, columns and whole blocks that all but vanish."""
    scores_NN = scores_of(64, 2, temperature)
    scores_NN[3] -= 5.0 / temperature
    scores_NN[:, 7] -= 9.0 / temperature
    scores_NN[:20, :30] -= 4.0 / temperature  # no permutation fits the rest: scalings drift with every iteration
    scores_NN[20:, 30:] -= 4.0 / temperature
    exact_NN, weights_NN = scores_NN.float().double(), scores_of(64, 3)
    soft_NN, grad_NN = value_and_gradient(sinkhorn, scores_NN.float(), weights_NN, 20)
    expected_NN, slope_NN = value_and_gradient(sinkhorn, exact_NN, weights_NN, 20)
    assert bool(soft_NN.isfinite().all() and grad_NN.isfinite().all())
    torch.testing.assert_close(soft_NN.sum(0), torch.ones(64), rtol=0, atol=1e-4)
    if temperature == 1e-3:  # below, float32 does not tell the scores apart any more
        torch.testing.assert_close(soft_NN.double(), expected_NN, rtol=0, atol=1e-3)
        torch.testing.assert_close(grad_NN.double(), slope_NN, rtol=0, atol=1e-3)
    torch.testing.assert_close(
        expected_NN, value_and_gradient(sinkhorn_reference, exact_NN, weights_NN, 20)[0], rtol=0, atol=1e-6
    )


def segments(scores_NN: Tensor, iterations: int) -> list[int]:
    return [len(segment) for segment in operator._iterate(scores_NN, iterations)[0]]


@pytest.mark.parametrize("size", [3, 20, 150])
def test_segments_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores_NN, weights_NN = scores_of(size, 4, 0.1), scores_of(size, 5)
    whole = value_and_gradient(sinkhorn, scores_NN, weights_NN, 12)
    assert segments(scores_NN, 12) == [12]
    monkeypatch.setattr(operator, "_reach", lambda dtype: 0.5)
    assert len(segments(scores_NN, 12)) > 1
    cut = value_and_gradient(sinkhorn, scores_NN, weights_NN, 12)
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_ordinary_scores_take_one_segment_and_hard_ones_more() -> None:
    scores_NN = scores_of(64, 2).float()
    assert segments(scores_NN / 0.1, 20) == [20]
    hard_NN = scores_NN.clone()
    hard_NN[:20, :30] -= 4.0
    hard_NN[20:, 30:] -= 4.0
    assert len(segments(hard_NN / 1e-3, 40)) > 1
    assert sum(segments(hard_NN / 1e-3, 40)) == 40


@pytest.mark.parametrize("reach", [None, 0.5])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_gradient_against_finite_differences(
    reach: float | None, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reach is not None:
        monkeypatch.setattr(operator, "_reach", lambda dtype: reach)
    scores_GNN = torch.stack([scores_of(4, seed, temperature) for seed in (6, 7)]).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: sinkhorn(scores, 6), (scores_GNN,))
    assert torch.autograd.gradcheck(lambda scores: sinkhorn(scores, 1), (scores_GNN,))


def test_computes_in_float32_whatever_comes_in() -> None:
    scores_NN = scores_of(6, 8).bfloat16().requires_grad_()
    soft_NN = sinkhorn(scores_NN, 20)
    soft_NN[0, 0].backward()
    assert soft_NN.dtype == torch.float32
    assert scores_NN.grad is not None
    assert scores_NN.grad.dtype == torch.bfloat16
    torch.testing.assert_close(soft_NN, sinkhorn_reference(scores_NN.float(), 20))
