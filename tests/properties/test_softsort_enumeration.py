"""Soft orders against every order of up to five patches, against their matrices, and against finite differences.

N slots or patches, B images, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_softsort import neuralsort, reference, sharpness
from reorder_softsort.laplace_kernel import LaplaceKernel
from reorder_softsort.lapsum import LapSumRows, bounds
from reorder_softsort.neuralsort import NeuralSortRows
from reorder_softsort.reference import laplace_cdf
from reorder_softsort.scores import falling
from reorder_softsort.soft_order import MakeRows, SoftOrder, read
from reorder_softsort.softsort import SoftSortRows
from torch import Tensor

Matrix = Callable[[Tensor, float], Tensor]
RELAXATIONS: dict[str, tuple[MakeRows, Matrix]] = {
    "softsort": (SoftSortRows, reference.softsort_matrix),
    "neuralsort": (NeuralSortRows, reference.neuralsort_matrix),
    "lapsum": (LapSumRows, reference.lapsum_matrix),
}
EACH = pytest.mark.parametrize("name", RELAXATIONS)
TEMPERATURES = [1e-9, 0.03, 0.7, 20.0]


def order_of(scores_N: Tensor) -> SoftOrder:
    falling_N, source_N = falling(scores_N.double())
    return SoftOrder(falling_N, source_N, torch.arange(len(scores_N)))


def drawn(n: int, seed: int, dtype: torch.dtype = torch.float64, width: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Scores in slots with gradient, tokens of three images with gradient, and a gradient that comes back."""
    draw = torch.Generator().manual_seed(seed)
    scores_N = (torch.randn(n, generator=draw, dtype=torch.float64) * max(1, n) / 3).requires_grad_()
    tokens_BND = torch.randn(3, n, width, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    return scores_N, tokens_BND, torch.randn(3, n, width, generator=draw, dtype=torch.float64).to(dtype)


def matrix_of(make: MakeRows, scores_N: Tensor, tau: float) -> Tensor:
    """The matrix [N, N] that is never formed: what it makes of one-hot tokens."""
    one_1NN = torch.eye(len(scores_N), dtype=torch.float64)[None]
    return read(order_of(scores_N), one_1NN, tau, make, straight_through=False)[0]


@EACH
@given(st.integers(1, 40), st.sampled_from(TEMPERATURES), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_are_those_of_the_matrix(name: str, n: int, tau: float, seed: int) -> None:
    make, matrix = RELAXATIONS[name]
    scores_N, tokens_BND, grad_BND = drawn(n, seed)
    ours = read(order_of(scores_N), tokens_BND, tau, make, straight_through=False)
    twin = matrix(scores_N, tau) @ tokens_BND
    torch.testing.assert_close(ours, twin, rtol=1e-8, atol=1e-9)
    for one, two in zip(
        torch.autograd.grad(ours, (scores_N, tokens_BND), grad_BND),
        torch.autograd.grad(twin, (scores_N, tokens_BND), grad_BND),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


@EACH
@pytest.mark.parametrize("tau", [0.2, 1.0, 5.0])
def test_gradients_are_finite_differences(name: str, tau: float) -> None:
    scores_N, tokens_BND, _ = drawn(7, seed=3)
    order = order_of(scores_N.detach())
    falling_N = order.falling_N.requires_grad_()

    def soft(falling_N: Tensor, tokens_BND: Tensor) -> Tensor:
        moved = SoftOrder(falling_N, order.source_N, order.target_N)
        return read(moved, tokens_BND, tau, RELAXATIONS[name][0], straight_through=False)

    assert torch.autograd.gradcheck(soft, (falling_N, tokens_BND))


@EACH
def test_straight_through_has_the_hard_value_and_the_soft_gradient(name: str) -> None:
    make = RELAXATIONS[name][0]
    scores_N, tokens_BND, grad_BND = drawn(30, seed=4)
    order = order_of(scores_N)
    hard = read(order, tokens_BND, 2.0, make)
    assert torch.equal(hard, tokens_BND[:, scores_N.argsort(descending=True)])
    soft = read(order, tokens_BND, 2.0, make, straight_through=False)
    grads = [torch.autograd.grad(y, (scores_N, tokens_BND), grad_BND, retain_graph=True) for y in (hard, soft)]
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


@EACH
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_order_is_reached_as_the_temperature_falls(name: str, n: int) -> None:
    """SoftSort → exact sort as τ → 0, for all n! orders; and its rows peak at the hard order before that."""
    make = RELAXATIONS[name][0]
    for perm in permutations(range(n)):
        scores_N = torch.empty(n, dtype=torch.float64)
        scores_N[list(perm)] = torch.arange(n, 0, -1, dtype=torch.float64)
        exact_NN = torch.eye(n, dtype=torch.float64)[list(perm)]
        assert order_of(scores_N).perm_N.tolist() == list(perm)
        for tau in (0.02, 1e-6, 1e-300):
            torch.testing.assert_close(matrix_of(make, scores_N, tau), exact_NN, rtol=0, atol=1e-8)
        # a column of LapSum's matrix sums to one as well: at a high temperature the ends push their neighbours off
        for tau in (0.1, 1.0) if name == "lapsum" else (0.1, 1.0, 10.0):
            assert matrix_of(make, scores_N, tau).argmax(1).tolist() == list(perm), "hard and soft agree at the mode"


@EACH
@given(st.integers(1, 30), st.sampled_from([0.03, 0.7, 20.0]), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_rows_are_distributions_that_peak_where_they_should(name: str, n: int, tau: float, seed: int) -> None:
    scores_N, *_ = drawn(n, seed)
    soft_NN = matrix_of(RELAXATIONS[name][0], scores_N.detach(), tau)
    one_N = torch.ones(n, dtype=torch.float64)
    assert float(soft_NN.min()) > -1e-12
    torch.testing.assert_close(soft_NN.sum(1), one_N, rtol=0, atol=1e-9)
    if name == "lapsum":  # doubly stochastic
        torch.testing.assert_close(soft_NN.sum(0), one_N, rtol=0, atol=1e-9)
    else:  # unimodal: each row is largest at its own patch, so that the peaks are a permutation (Grover et al., def. 1)
        own_N = soft_NN[torch.arange(n), order_of(scores_N).perm_N]
        torch.testing.assert_close(own_N, soft_NN.amax(1), rtol=1e-12, atol=0)


@EACH
@pytest.mark.parametrize("tau", [0.03, 1.0, 20.0])
def test_peaks_are_those_of_the_matrix(name: str, tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpness, "_BLOCK", 7)
    make, matrix = RELAXATIONS[name]
    falling_N = order_of(drawn(25, seed=1)[0].detach()).falling_N
    place_N, peak_N = sharpness.row_peaks(falling_N, tau, make)
    expected_N, where_N = matrix(falling_N, tau).max(dim=1)
    torch.testing.assert_close(peak_N.double(), expected_N, rtol=1e-4, atol=1e-5)
    assert place_N.tolist() == where_N.tolist()


@EACH
def test_equal_scores_share_a_slot(name: str) -> None:
    make, matrix = RELAXATIONS[name]
    scores_N = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(matrix_of(make, scores_N, 0.1), matrix(scores_N, 0.1), rtol=1e-7, atol=1e-9)
    scores_N.requires_grad_()
    (grad_N,) = torch.autograd.grad(matrix_of(make, scores_N, 0.1)[0, 1], scores_N)
    assert bool(grad_N.isfinite().all())


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tau", [1e-30, 1e-3, 1.0, 1e3])
def test_single_and_half_precision_are_close_and_finite(name: str, dtype: torch.dtype, tau: float) -> None:
    make = RELAXATIONS[name][0]
    scores_N, tokens_BND, grad_BND = drawn(150, seed=5, dtype=dtype)
    exact = read(order_of(scores_N), tokens_BND.double(), tau, make, straight_through=False)
    y_BND = read(order_of(scores_N), tokens_BND, tau, make, straight_through=False)
    assert y_BND.dtype == dtype
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(y_BND.double(), exact, **close)
    ours = torch.autograd.grad(y_BND, (scores_N, tokens_BND), grad_BND)
    twin = torch.autograd.grad(exact, (scores_N, tokens_BND), grad_BND.double())
    torch.testing.assert_close(ours[0], twin[0], rtol=1e-3, atol=1e-3 * float(twin[0].abs().max()) + 1e-30)
    torch.testing.assert_close(ours[1].double(), twin[1].double(), **close)


@given(st.integers(1, 70), st.integers(1, 40), st.floats(1e-3, 1e3), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_the_kernel_in_chunks_is_the_kernel(n: int, chunk: int, tau: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    a_N = (torch.randn(n, generator=draw, dtype=torch.float64) * n).sort(descending=True).values
    x_NF = torch.randn(n, 2, generator=draw, dtype=torch.float64)
    kernel_NN = (-(a_N[:, None] - a_N[None, :]).abs() / tau).exp()
    kernel = LaplaceKernel(a_N, tau, torch.float64, chunk)
    x_MCF = kernel.split(x_NF)
    torch.testing.assert_close(kernel.join(kernel.multiply(x_MCF)), kernel_NN @ x_NF, rtol=1e-9, atol=1e-9)
    earlier_MCF, later_MCF = kernel.sides(x_MCF)
    torch.testing.assert_close(kernel.join(earlier_MCF), kernel_NN.tril(-1) @ x_NF, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(kernel.join(later_MCF), kernel_NN.triu(1) @ x_NF, rtol=1e-9, atol=1e-9)


@given(st.integers(2, 60), st.floats(1e-4, 1e4), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_bounds_hold_one_score_each(n: int, tau: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    u_N = (torch.randn(n, generator=draw, dtype=torch.float64) * n / 3).sort().values
    b_J = bounds(u_N, tau)
    count_J = laplace_cdf((b_J[:, None] - u_N) / tau).sum(1)
    torch.testing.assert_close(count_J, torch.arange(1, n, dtype=torch.float64), rtol=0, atol=1e-8)


def test_neuralsort_in_blocks_is_neuralsort_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores_N, tokens_BND, grad_BND = drawn(23, seed=6)

    def run() -> list[Tensor]:
        y_BND = read(order_of(scores_N), tokens_BND, 3.0, NeuralSortRows, straight_through=False)
        return [y_BND, *torch.autograd.grad(y_BND, (scores_N, tokens_BND), grad_BND)]

    whole = run()
    monkeypatch.setattr(neuralsort, "ENTRIES", 60)
    for one, two in zip(whole, run(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@EACH
def test_images_in_slabs_are_the_images_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores_N, tokens_BND, grad_BND = drawn(20, seed=7)

    def run() -> list[Tensor]:
        y_BND = read(order_of(scores_N), tokens_BND, 1.0, RELAXATIONS[name][0], straight_through=False)
        return [y_BND, *torch.autograd.grad(y_BND, (scores_N, tokens_BND), grad_BND)]

    whole = run()
    monkeypatch.setattr(RELAXATIONS[name][0], "slab", 1)
    for one, two in zip(whole, run(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_a_line_of_other_slots_is_the_same_sort_elsewhere() -> None:
    """Barthel et al., algorithm 1: sorted along the line, and put back to the slots that the line came from."""
    scores_N, tokens_BND, grad_BND = drawn(12, seed=8)
    draw = torch.Generator().manual_seed(9)
    order_N, line_N = torch.randperm(12, generator=draw), torch.randperm(12, generator=draw)
    falling_N, index_N = falling(scores_N)
    order = SoftOrder(falling_N, order_N[line_N][index_N], line_N)
    ours = read(order, tokens_BND, 1.0, SoftSortRows, straight_through=False)
    along_BND = reference.softsort_matrix(scores_N, 1.0) @ tokens_BND[:, order_N[line_N]]
    twin = torch.empty_like(along_BND).index_copy(1, line_N, along_BND)
    torch.testing.assert_close(ours, twin)
    assert torch.equal(read(order, tokens_BND, 0.0, SoftSortRows), tokens_BND[:, order.perm_N])
    for one, two in zip(
        torch.autograd.grad(ours, (scores_N, tokens_BND), grad_BND),
        torch.autograd.grad(twin, (scores_N, tokens_BND), grad_BND),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-8)
