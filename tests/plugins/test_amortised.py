"""The room amortised: an order for each image, its estimators by enumeration, and runs that read with it."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from reorder_amortised.policy import Amortised
from reorder_amortised.settings import AmortisedSettings
from torch import Tensor

from reorder_core import Clock, Context, DataFacts, Grid, Outcome, RunFacts, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.conformance import check_policy
from reorder_core.conformance import context as where
from reorder_core.opened import open_run
from reorder_core.recipe import RecipeError, load_recipe
from reorder_core.settings import ComponentRef

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
CLOCK = Clock(step=5, steps_per_epoch=5, learn_start=0, learn_stop=10, total=10)
TAU = 0.6
VARIANTS: list[dict[str, object]] = [
    {},
    {"scorer": "tokens", "hidden": 4},
    {"baseline": "greedy", "orders_per_image": 1},
    {"baseline": "batch", "orders_per_image": 1},
    {"antithetic": True, "orders_per_image": 4},
    {"estimator": "softsort"},
]


def policy(grid: Grid, prior_N: np.ndarray | None = None, width: int = 6, **given: object) -> Amortised:
    prior_N = np.random.default_rng(5).permutation(len(grid)) if prior_N is None else prior_N
    context = Context(grid, prior_N=prior_N, width=width, generator=torch.Generator().manual_seed(0))
    return Amortised(AmortisedSettings(**given), context)  # type: ignore[arg-type]


def moved(made: Amortised, seed: int = 1, by: float = 0.4) -> Amortised:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in made.parameters():
            values.add_(by * torch.randn(values.shape, generator=draw))
    return made


@pytest.mark.parametrize("given", VARIANTS, ids=str)
def test_keeps_the_contract(given: dict[str, object]) -> None:
    check_policy(Amortised, AmortisedSettings(**given), examples=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["row_major", "hilbert", "spiral", "snake", "column_major", "morton"])
def test_starts_at_the_prior_for_every_image(name: str) -> None:
    grid = Grid(8, 8)
    prior_N = Catalogue.load().build(ComponentRef("ordering", name), where(grid)).permutation(grid)
    for given in VARIANTS:
        made = policy(grid, prior_N, **given)
        tokens_BND = 100 * torch.randn(3, 64, 6, generator=torch.Generator().manual_seed(1))
        assert made.best().tolist() == prior_N.tolist()
        assert made.best(tokens_BND).tolist() == [prior_N.tolist()] * 3


ORDERS = torch.tensor(list(permutations(range(3))))


def number_of(perm_N: Tensor) -> int:
    return int((perm_N == ORDERS).all(1).nonzero()[0, 0])


def tokens(batch: int) -> Tensor:
    return torch.randn(batch, 3, 6, generator=torch.Generator().manual_seed(7))


def rewards(batch: int) -> Tensor:
    """[B, 6]: of each image under each of the 6 orders."""
    return torch.rand(batch, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def law(made: Amortised, batch: int) -> Tensor:
    """log p of each order for each image, [B, 6], slot by slot as it is defined."""
    scores_BN = made.scores(tokens(batch)) / TAU
    rows = []
    for order in ORDERS:
        s_BN = scores_BN[:, order]
        rows.append(sum(s_BN[:, slot] - s_BN[:, slot:].logsumexp(1) for slot in range(3)))
    return torch.stack(rows, dim=1)  # type: ignore[arg-type]


def exact_gradient(made: Amortised, batch: int) -> list[Tensor]:
    """∇ of the mean over images of Σ_order p · reward."""
    expected = (law(made, batch).exp() * rewards(batch)).sum(1).mean()
    return list(torch.autograd.grad(expected, list(made.parameters())))


def estimate(made: Amortised, numbers_MB: Tensor) -> list[Tensor]:
    """The gradient of one draw in which image b was read in these of the six orders."""
    batch = numbers_MB.shape[1]
    mean_N = made.mean_N.clone()
    draw = made.hand_out(made.scores(tokens(batch)), ORDERS[numbers_MB], TAU)
    rows = torch.cat([draw.group_B[None], draw.extra_MB]) if draw.extra_MB is not None else draw.group_B[None]
    read = torch.tensor([[number_of(draw.perm_GN[g]) for g in row] for row in rows.tolist()])
    loss_MB = -rewards(batch).T.gather(0, read)
    step = made.observe(draw, Outcome(loss_MB, torch.arange(batch), CLOCK))
    assert step.loss is not None
    made.mean_N.copy_(mean_N)
    return list(torch.autograd.grad(-step.loss, list(made.parameters())))


@pytest.mark.parametrize(
    "given",
    [
        {"orders_per_image": 2},
        {"orders_per_image": 1, "baseline": "greedy"},
        {"orders_per_image": 1, "baseline": "batch"},
    ],
    ids=str,
)
def test_unbiased_by_enumeration(given: dict[str, object]) -> None:
    made, batch = moved(policy(Grid(1, 3), hidden=3, **given)), 2
    p_B6 = law(made, batch).detach().exp()
    assert p_B6.sum(1).tolist() == pytest.approx([1.0] * batch)
    rows = int(given["orders_per_image"])  # type: ignore[call-overload]
    total = [torch.zeros_like(values, dtype=torch.float64) for values in made.parameters()]
    for numbers in product(range(6), repeat=rows * batch):
        numbers_MB = torch.tensor(numbers).view(rows, batch)
        weight = float(torch.stack([p_B6[b, numbers_MB[:, b]].prod() for b in range(batch)]).prod())
        if weight > 1e-12:
            for sum_, grad in zip(total, estimate(made, numbers_MB), strict=True):
                sum_ += weight * grad.double()
    for ours, exact in zip(total, exact_gradient(made, batch), strict=True):
        torch.testing.assert_close(ours, exact.double(), rtol=1e-4, atol=1e-6)


def test_unbiased_for_antithetic_pairs() -> None:
    """Any coupling with the right marginals: half of the time the partner is a copy, else it is independent."""
    made = moved(policy(Grid(1, 3), hidden=3, antithetic=True, orders_per_image=4))
    p_6 = law(made, 1).detach().exp()[0]
    joint_66 = 0.5 * torch.diag(p_6) + 0.5 * p_6[:, None] * p_6[None, :]
    total = [torch.zeros_like(values, dtype=torch.float64) for values in made.parameters()]
    for a, b, a_pair, b_pair in product(range(6), repeat=4):
        weight = float(joint_66[a, a_pair] * joint_66[b, b_pair])
        for sum_, grad in zip(total, estimate(made, torch.tensor([[a], [b], [a_pair], [b_pair]])), strict=True):
            sum_ += weight * grad.double()
    for ours, exact in zip(total, exact_gradient(made, 1), strict=True):
        torch.testing.assert_close(ours, exact.double(), rtol=1e-4, atol=1e-6)


def test_draws_follow_the_law_of_each_image() -> None:
    made = moved(policy(Grid(1, 3), orders_per_image=2))
    counts_B6 = torch.zeros(2, 6)
    for _ in range(1500):
        draw = made.draw(2, tokens(2), TAU)
        for row in (draw.group_B, draw.extra_MB[0]):  # type: ignore[index]
            for image in range(2):
                counts_B6[image, number_of(draw.perm_GN[row[image]])] += 1
    share_B6 = counts_B6 / counts_B6.sum(1, keepdim=True)
    torch.testing.assert_close(share_B6.double(), law(made, 2).detach().exp(), rtol=0, atol=0.04)


@pytest.mark.parametrize("given", [{"orders_per_image": 2}, {"estimator": "softsort"}], ids=str)
def test_learns_to_read_each_images_own_patch_last(given: dict[str, object]) -> None:
    """One patch of each image is marked, at another place in each; the loss is how far from the end it is read."""
    made = policy(Grid(4, 4), np.arange(16), width=8, hidden=8, **given)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    draws = torch.Generator().manual_seed(0)

    def marked(batch: int) -> tuple[Tensor, Tensor]:
        tokens_BND = 0.3 * torch.randn(batch, 16, 8, generator=draws)
        mark_B = torch.randint(16, (batch,), generator=draws)
        tokens_BND[torch.arange(batch), mark_B, 0] += 3.0
        return tokens_BND, mark_B

    slot_N = torch.arange(16.0) / 15
    for _ in range(150):
        tokens_BND, mark_B = marked(32)
        draw = made.draw(32, tokens_BND, 0.3)
        if draw.soft is not None:
            mark_BN1 = torch.nn.functional.one_hot(mark_B, 16)[..., None].float()
            loss = 1 - (draw.soft(mark_BN1)[..., 0] * slot_N).sum(1).mean()
            made.observe(draw, Outcome(torch.zeros(1, 32), torch.arange(32), CLOCK))
        else:
            rows = torch.cat([draw.group_B[None], draw.extra_MB])  # type: ignore[list-item]
            where_MB = (draw.perm_GN[rows] == mark_B[:, None]).float().argmax(-1)
            loss = made.observe(draw, Outcome(1 - slot_N[where_MB], torch.arange(32), CLOCK)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens_BND, mark_B = marked(64)
    slot_B = (made.best(tokens_BND) == mark_B[:, None]).float().argmax(-1).float()
    assert float(slot_B.mean()) > 13.0, "a fixed order would give 7.5"
    assert float((made.best()[None] == mark_B[:, None]).float().argmax(-1).float().mean()) < 11.0


def test_settings_that_contradict_are_told() -> None:
    facts = RunFacts(data=DataFacts(8, 8, 1), grid=Grid(4, 4), patch=2, batch_size=1, positions="learned")

    def said(**given: object) -> str:
        return " ".join(problem.message for problem in AmortisedSettings(**given).problems(facts))  # type: ignore[arg-type]

    assert said() == said(estimator="softsort") == ""
    assert "at least 2 orders_per_image" in said(orders_per_image=1)
    assert "at least 4 orders_per_image" in said(antithetic=True)
    assert "even number" in said(antithetic=True, orders_per_image=3, baseline="greedy")
    assert "at least 2 images" in said(baseline="batch")
    assert "needs no baseline" in said(estimator="softsort", orders_per_image=4)
    with pytest.raises(UsageError, match=r"policy.baseline: leave_one_out needs at least 2"):
        policy(Grid(2, 2), orders_per_image=1)
    with pytest.raises(UsageError, match="needs an order to start from"):
        Amortised(AmortisedSettings(), Context(Grid(2, 2), width=4))  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="knows their width"):
        Amortised(AmortisedSettings(), Context(Grid(2, 2), prior_N=np.arange(4)))  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="needs their tokens"):
        policy(Grid(2, 2)).draw(4, None, 0.1)


CROSS = "backbone={name: mamba, width: 16, depth: 1, state: 4, direction: cross, orders: 2, readout: mean}"


def test_a_backbone_that_reads_several_orders_is_refused_by_check() -> None:
    with pytest.raises(RecipeError, match=r"'amortised' gives each image an order of its own.*reads 2 orders at once"):
        load_recipe(SMOKE, ["policy={name: amortised}", CROSS, "ordering=[row_major, column_major]"])


SHORT = [
    "controls=[]",
    "training.epochs=3",
    "training.steps_per_epoch=4",
    "training.phases.learn=1",
    "backbone.width=16",
    "backbone.depth=1",
]


@pytest.mark.parametrize("given", ["{name: amortised}", "{name: amortised, estimator: softsort}"])
def test_a_run_validates_each_image_in_its_own_order_and_goes_on_after_a_stop(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[bool, bool]] = []  # (training, an order an image)
    from reorder_core.model import Model

    plain = Model.ordered

    def watched(self, images_BCHW, order):  # type: ignore[no-untyped-def]
        layout = order if not hasattr(order, "perm_GN") or hasattr(order, "grid") else None
        group_B = order.group_B
        read.append((self.training, group_B is not None and len(order.perm_GN) >= len(images_BCHW)))
        assert layout is None or layout.grid == self.grid
        return plain(self, images_BCHW, order)

    monkeypatch.setattr(Model, "ordered", watched)
    arguments = [part for each in (*SHORT, f"policy={given}") for part in ("-o", each)]
    assert main(["run", str(SMOKE), "--out", str(tmp_path), "--device", "cpu", *arguments]) == 0
    training = [own for trains, own in read if trains]
    assert training[:4] == [False] * 4, "warm-up in the prior"
    assert all(training[4:]), "learning and frozen: an order an image"
    validating = [own for trains, own in read if not trains]
    assert all(validating), "validation after warm-up, too, in an order for each image"
    (folder,) = (tmp_path / "smoke").iterdir()
    saved = json.loads((folder / "order.json").read_text())
    assert sorted(saved["permutation"]) == list(range(16))
    assert open_run(folder, "cpu").order_N.tolist() == saved["permutation"]
