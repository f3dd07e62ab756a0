"""Sorting straight through: exactly the hard order forward, exactly SoftSort's gradient backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reorder_core import straight_through
from reorder_core.straight_through import falling_order, straight_through_sort


def twin(tokens_BND: Tensor, scores_BN: Tensor, tau: float) -> Tensor:
    """P_hard + P − [P], matrix for matrix, with everything that autograd sees of it."""
    index_BN = falling_order(scores_BN)
    sorted_BN = scores_BN.gather(1, index_BN)
    soft_BNN = (-(sorted_BN[:, :, None] - scores_BN[:, None, :]).abs() / tau).softmax(dim=-1)
    hard_BNN = torch.nn.functional.one_hot(index_BN, scores_BN.shape[1]).to(soft_BNN)
    through_BNN = hard_BNN + soft_BNN - soft_BNN.detach()
    return through_BNN @ tokens_BND


def given_tensors(batch: int, patches: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    tokens_BND = torch.randn(batch, patches, 5, generator=draw, dtype=dtype).requires_grad_()
    return tokens_BND, torch.randn(batch, patches, generator=draw, dtype=dtype).requires_grad_()


@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 99), st.floats(0.05, 3.0))
@settings(max_examples=40, deadline=None)
def test_it_is_the_hard_order_with_softsorts_gradient(batch: int, patches: int, seed: int, tau: float) -> None:
    ours, theirs = given_tensors(batch, patches, seed), given_tensors(batch, patches, seed)
    out = straight_through_sort(*ours, falling_order(ours[1]), tau)
    expected = twin(*theirs, tau)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed + 1))
    for mine, other in zip(
        torch.autograd.grad((out * weight).sum(), ours),
        torch.autograd.grad((expected * weight).sum(), theirs),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_blocks_of_slots_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for elements in (2**20, 40, 1):
        monkeypatch.setattr(straight_through, "_ELEMENTS", elements)
        tokens_BND, scores_BN = given_tensors(2, 11, 0)
        out = straight_through_sort(tokens_BND, scores_BN, falling_order(scores_BN), 0.3)
        found.append(torch.autograd.grad((out**2 * torch.arange(11.0)[:, None]).sum(), scores_BN)[0])
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_the_slope_is_that_of_the_soft_order_by_finite_differences() -> None:
    """What flows to the scores is the derivative of the soft read-out Σ_i w_i (P x)_i, P taken at the same order."""
    tokens_BND, scores_BN = given_tensors(1, 6, 4, torch.float64)
    index_BN = falling_order(scores_BN)
    weight_N1 = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    out = straight_through_sort(tokens_BND.detach(), scores_BN, index_BN, 0.5)
    (slope_BN,) = torch.autograd.grad((out * weight_N1).sum(), scores_BN)

    def soft(s_BN: Tensor) -> float:
        p_BNN = (-(s_BN.gather(1, index_BN)[:, :, None] - s_BN[:, None, :]).abs() / 0.5).softmax(-1)
        return float(((p_BNN @ tokens_BND.detach()) * weight_N1).sum())

    for patch in range(6):
        step_BN = torch.zeros(1, 6, dtype=torch.float64)
        step_BN[0, patch] = 1e-6
        difference = (soft(scores_BN.detach() + step_BN) - soft(scores_BN.detach() - step_BN)) / 2e-6
        assert float(slope_BN[0, patch]) == pytest.approx(difference, rel=1e-3, abs=1e-4)


def test_equal_scores_keep_their_order() -> None:
    assert falling_order(torch.tensor([[1.0, 2.0, 1.0, 2.0]])).tolist() == [[1, 3, 0, 2]]
