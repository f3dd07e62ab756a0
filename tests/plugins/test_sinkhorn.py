"""The room sinkhorn: its policy's start, draws, schedules, straight-through reading, state and settings.

B images, G orders, N slots and patches, D width.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_sinkhorn.policy import GumbelSinkhorn, entropy, gumbel_noise
from reorder_sinkhorn.reference import sinkhorn_reference
from reorder_sinkhorn.settings import GumbelSinkhornSettings
from reorder_sinkhorn.soft_order import SoftRead, read
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reorder_core import Clock, Context, DataFacts, Draw, Grid, Outcome, RunFacts, UsageError
from reorder_core.conformance import check_policy

GRIDS = [Grid(1, 1), Grid(1, 7), Grid(4, 6), Grid(8, 8), Grid(14, 14)]
CLOCK = Clock(step=5, steps_per_epoch=10, learn_start=0, learn_stop=10, total=10)
FORMS: list[dict[str, object]] = [{}, {"parametrisation": "low_rank"}, {"parametrisation": "low_rank", "rank": 2}]


def policy(grid: Grid, prior_N: np.ndarray | None = None, seed: int = 0, **given: object) -> GumbelSinkhorn:
    prior_N = np.random.default_rng(5).permutation(len(grid)) if prior_N is None else prior_N
    context = Context(grid, prior_N=prior_N, generator=torch.Generator().manual_seed(seed))
    return GumbelSinkhorn(GumbelSinkhornSettings(**given), context)  # type: ignore[arg-type]


@given(st.sampled_from(GRIDS), st.integers(0, 1000), st.floats(1e-3, 1e3), st.sampled_from(FORMS))
@settings(max_examples=30, deadline=None)
def test_starts_at_any_order(grid: Grid, seed: int, spread: float, form: dict[str, object]) -> None:
    prior_N = np.random.default_rng(seed).permutation(len(grid))
    made = policy(grid, prior_N, spread=spread, **form)
    assert made.best().tolist() == prior_N.tolist()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_starts_at_the_prior_with_a_thousand_patches(form: dict[str, object]) -> None:
    made = policy(Grid(32, 32), **form)
    assert torch.equal(made.best(), made.prior_N)


@pytest.mark.parametrize("patches", [16, 256])
def test_the_spread_says_how_sure_a_row_is(patches: int) -> None:
    """A row alone chooses the prior's patch with probability 1 / (1 + e^−spread), whatever N."""
    made = policy(Grid(1, patches), spread=1.5)
    chosen = made.logits().softmax(1).gather(1, made.prior_N[:, None])
    assert float(chosen.detach().mean()) == pytest.approx(1 / (1 + math.exp(-1.5)), rel=0.02)


@pytest.mark.parametrize(
    "given",
    [
        *FORMS,
        {"orders": 1},
        {"orders": 16},
        {"noise": 0.0, "orders": 1},
        {"final_iterations": 40},
        {"entropy_penalty": 0.1},
    ],
    ids=str,
)
def test_keeps_the_contract(given: dict[str, object]) -> None:
    check_policy(GumbelSinkhorn, GumbelSinkhornSettings(**given), grid=Grid(4, 4), examples=3)  # type: ignore[arg-type]


def test_temperature_at_start_middle_and_end() -> None:
    clocks = [Clock(step, steps_per_epoch=10, learn_start=20, learn_stop=60, total=100) for step in range(100)]
    cosine = [policy(Grid(2, 2), temperature=2.0, final_temperature=0.02).temperature(clock) for clock in clocks]
    assert cosine[0] == cosine[20] == pytest.approx(2.0)
    assert cosine[40] == pytest.approx(0.2), "halfway on a logarithmic scale"
    assert cosine[60] == cosine[99] == pytest.approx(0.02)
    assert cosine == sorted(cosine, reverse=True)
    triangle = policy(Grid(2, 2), schedule="triangular", temperature=1.0, final_temperature=0.1)
    assert [triangle.temperature(clocks[step]) for step in (20, 40, 60)] == pytest.approx([0.1, 1.0, 0.1])
    constant = policy(Grid(2, 2), schedule="constant", temperature=0.5)
    assert {constant.temperature(clock) for clock in clocks} == {0.5}


def test_iterations_follow_the_temperature() -> None:
    made = policy(Grid(2, 2), temperature=1.0, final_temperature=0.01, iterations=10, final_iterations=50)
    assert [made.iterations(tau) for tau in (5.0, 1.0, 0.1, 0.01, 0.001)] == [10, 10, 30, 50, 50]
    assert policy(Grid(2, 2), iterations=7).iterations(0.3) == 7


def dense(soft_GNN: Tensor, perm_GN: Tensor, group_B: Tensor, tokens_BND: Tensor) -> Tensor:
    """Straight-through as it is written: P = hard + soft − [soft] for every image."""
    hard_GNN = torch.eye(perm_GN.shape[1], dtype=soft_GNN.dtype)[perm_GN]
    through_GNN = hard_GNN + soft_GNN - soft_GNN.detach()
    return torch.einsum("bij,bjd->bid", through_GNN[group_B], tokens_BND)


@pytest.mark.parametrize("groups", [1, 3])
def test_reading_is_hard_forward_and_soft_backward(groups: int) -> None:
    draw = torch.Generator().manual_seed(0)
    soft_GNN = torch.rand(groups, 5, 5, generator=draw, dtype=torch.float64).requires_grad_()
    tokens_BND = torch.randn(7, 5, 2, generator=draw, dtype=torch.float64).requires_grad_()
    weights_BND = torch.randn(7, 5, 2, generator=draw, dtype=torch.float64)
    perm_GN = torch.stack([torch.randperm(5, generator=draw) for _ in range(groups)])
    group_B = torch.arange(7) % groups
    found, expected = (form(soft_GNN, perm_GN, group_B, tokens_BND) for form in (read, dense))
    torch.testing.assert_close(found, expected)
    assert torch.equal(found, tokens_BND.take_along_dim(perm_GN[group_B][..., None], 1)), "not a bit is changed"
    grads = [torch.autograd.grad((out * weights_BND).sum(), (soft_GNN, tokens_BND)) for out in (found, expected)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("form", FORMS[:2], ids=str)
def test_the_logits_get_the_gradient_of_the_soft_orders(form: dict[str, object]) -> None:
    made = policy(Grid(2, 3), orders=2, seed=4, **form)
    tokens_BND = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(1))
    weights_BND = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(2))
    draw = made.draw(5, None, 0.5)
    assert draw.soft is not None
    found = torch.autograd.grad((draw.soft(tokens_BND) * weights_BND).sum(), tuple(made.parameters()))
    noise = torch.Generator().manual_seed(4)
    scores = torch.stack([(made.logits() + gumbel_noise(6, noise)) / 0.5 for _ in range(2)])
    soft_BNN = sinkhorn_reference(scores, 20)[draw.group_B]
    expected = torch.autograd.grad((soft_BNN @ tokens_BND * weights_BND).sum(), tuple(made.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_part_reads_its_own_images() -> None:
    made = policy(Grid(3, 3), orders=3)
    draw = made.draw(8, None, 0.5)
    tokens_BND = torch.randn(8, 9, 4, generator=torch.Generator().manual_seed(0))

    def gradient(draw: Draw, images: slice) -> Tensor:
        assert draw.soft is not None
        out = draw.soft(tokens_BND[images])
        return torch.autograd.grad((out * tokens_BND[images].flip(1)).sum(), made.logits.learned_NN, retain_graph=True)[
            0
        ]  # type: ignore[arg-type]

    halves = [slice(0, 2), slice(2, 8)]  # the first part has no image of the last order
    parts = [gradient(draw.part(images), images) for images in halves]
    torch.testing.assert_close(sum(parts), gradient(draw, slice(0, 8)))
    for images in halves:
        part = draw.part(images)
        assert part.soft is not None
        assert torch.equal(part.soft(tokens_BND[images]), part.layout(Grid(3, 3)).order(tokens_BND[images]))


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any tensor had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.numel())
        return out


def test_no_matrix_for_each_image_is_formed() -> None:
    batch, orders, patches, width = 48, 2, 64, 4
    made = policy(Grid(8, 8), orders=orders)
    tokens_BND = torch.randn(batch, patches, width, requires_grad=True)
    with Largest() as largest:
        draw = made.draw(batch, None, 0.5)
        assert draw.soft is not None
        draw.soft(tokens_BND).square().sum().backward()
    assert made.logits.learned_NN.grad is not None
    assert largest.numbers == max(batch * patches * width, orders * patches**2)


def test_low_precision_tokens_teach_the_logits_in_float32() -> None:
    made = policy(Grid(3, 3), orders=2)
    draw = made.draw(4, None, 0.5)
    assert draw.soft is not None
    out = draw.soft(torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(0)).bfloat16())
    assert out.dtype == torch.bfloat16
    out.float().square().mul(torch.arange(9.0)[:, None]).sum().backward()
    assert made.logits.learned_NN.grad is not None
    assert made.logits.learned_NN.grad.dtype == torch.float32


@pytest.mark.parametrize("form", FORMS[:2], ids=str)
def test_learns_an_order_from_the_loss_of_its_tokens(form: dict[str, object]) -> None:
    """Slot s of every image should hold the patch that a hidden order puts there."""
    grid, hidden_N = Grid(3, 4), torch.randperm(12, generator=torch.Generator().manual_seed(3))
    made = policy(grid, orders=4, **form)
    assert made.best().tolist() != hidden_N.tolist()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.05, weight_decay=0.0)
    data = torch.Generator().manual_seed(0)
    for step in range(200):
        tokens_BND = torch.randn(16, 12, 4, generator=data)
        tau = made.temperature(Clock(step, 100, 0, 200, 200))
        draw = made.draw(16, None, tau)
        assert draw.soft is not None
        loss_B = (draw.soft(tokens_BND) - tokens_BND[:, hidden_N]).square().mean((1, 2))
        loss_B.mean().backward()
        assert made.observe(draw, Outcome(loss_B.detach()[None], torch.arange(16), CLOCK)).loss is None
        optimizer.step()
        optimizer.zero_grad()
    assert made.best().tolist() == hidden_N.tolist()


def test_metrics_are_numbers_that_mean_something() -> None:
    made = policy(Grid(4, 4), noise=0.0, orders=1, iterations=40)
    outcome = Outcome(torch.full((1, 6), 2.0), torch.arange(6), CLOCK)
    cold, warm = (made.observe(made.draw(6, None, tau), outcome).numbers() for tau in (0.05, 20.0))
    assert {"reward", "entropy", "sharpness", "agreement", "row_error", "column_error", "kendall_tau_to_prior"} == {
        *cold
    }
    assert all(isinstance(value, float) for value in cold.values())
    assert cold["reward"] == -2.0
    assert cold["entropy"] == pytest.approx(0.0, abs=1e-6)
    assert warm["entropy"] == pytest.approx(math.log(16), rel=0.01)
    assert cold["sharpness"] == cold["agreement"] == cold["kendall_tau_to_prior"] == 1.0
    assert max(cold["row_error"], cold["column_error"]) < 1e-5


def test_the_entropy_penalty_sharpens() -> None:
    made = policy(Grid(3, 3), entropy_penalty=0.5, orders=2)
    draw = made.draw(4, None, 1.0)
    assert draw.soft is not None
    draw.soft(torch.randn(4, 9, 2, generator=torch.Generator().manual_seed(0))).sum().backward()  # frees that graph
    step = made.observe(draw, Outcome(torch.rand(1, 4), torch.arange(4), CLOCK))
    assert step.loss is not None
    before = float(step.loss.detach())
    made.zero_grad()
    step.loss.backward()
    with torch.no_grad():
        made.logits.learned_NN -= 5.0 * made.logits.learned_NN.grad
    after = made.observe(draw, Outcome(torch.rand(1, 4), torch.arange(4), CLOCK)).loss
    assert after is not None
    assert float(after.detach()) < before


def test_the_entropy_of_a_matrix_with_zeros_has_a_finite_gradient() -> None:
    """float32 underflows where the temperature is low; the derivative of p log p at 0 is infinite."""
    soft_NN = torch.eye(3, requires_grad=True)
    entropy(soft_NN).backward()
    assert soft_NN.grad is not None
    assert bool(soft_NN.grad.isfinite().all())


def test_entropy_of_a_permutation_and_of_an_even_matrix() -> None:
    assert float(entropy(torch.eye(5))) == pytest.approx(0.0, abs=1e-30)
    assert float(entropy(torch.full((2, 5, 5), 0.2))) == pytest.approx(math.log(5))


def test_state_goes_into_a_fresh_policy() -> None:
    one, two = (policy(Grid(4, 6), seed=seed) for seed in (0, 1))
    with torch.no_grad():
        one.logits.learned_NN.normal_(std=20.0, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(one.best(), two.best())
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.best(), two.best())
    assert [*one.state_dict()] == ["logits.learned_NN"]


def problems(grid: Grid | None = None, batch: int = 8, **given: object) -> dict[str, str]:
    facts = RunFacts(data=DataFacts(8, 8, 1), grid=grid or Grid(2, 2), patch=4, batch_size=batch, positions="learned")
    return {p.key: p.message for p in GumbelSinkhornSettings(**given).problems(facts)}  # type: ignore[arg-type]


def test_problems_say_what_to_do() -> None:
    assert problems() == {}
    assert "8 orders do not fit a batch of 4" in problems(batch=4)["orders"]
    assert "above 0, not -1" in problems(temperature=-1.0)["temperature"]
    assert "above 0, not 0" in problems(final_temperature=0.0)["final_temperature"]
    assert (
        "iterations follow the temperature" in problems(final_temperature=1.0, final_iterations=3)["final_iterations"]
    )
    assert problems(Grid(32, 32)) == {}
    long = problems(Grid(64, 64))["orders"]
    assert "4096 patches need about 2.5 GiB" in long
    assert "softsort, shuffle_softsort or reinforce" in long
    assert problems(Grid(64, 64), parametrisation="low_rank", orders=4) == {}


def test_an_odd_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        GumbelSinkhornSettings(parametrisation="low_rank", rank=3)


def test_bad_builds_and_draws_are_usage_errors() -> None:
    bare = GumbelSinkhornSettings()
    with pytest.raises(UsageError, match="needs an order to start from"):
        GumbelSinkhorn(bare, Context(Grid(2, 2), generator=torch.Generator()))
    with pytest.raises(UsageError, match="build it with one"):
        GumbelSinkhorn(bare, Context(Grid(2, 2), prior_N=np.arange(4)))
    with pytest.raises(UsageError, match="use the policy softsort"):
        policy(Grid(128, 128))
    with pytest.raises(UsageError, match="must be above 0"):
        policy(Grid(2, 2), temperature=0.0)
    with pytest.raises(UsageError, match="must be above 0, not 0"):
        policy(Grid(2, 2)).draw(8, None, 0.0)
    with pytest.raises(UsageError, match="do not fit a batch of 4"):
        policy(Grid(2, 2)).draw(4, None, 1.0)


def test_draws_hold_what_the_reader_needs() -> None:
    made = policy(Grid(4, 6), orders=3)
    draw = made.draw(10, None, 0.5)
    assert draw.group_B.tolist() == [i % 3 for i in range(10)]
    assert draw.perm_GN.shape == (3, 24)
    assert draw.log_prob_G is None
    assert isinstance(draw.soft, SoftRead)
    assert len({tuple(perm_N) for perm_N in draw.perm_GN.tolist()}) == 3, "each order has noise of its own"
