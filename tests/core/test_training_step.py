"""One step: which order is read when, and what the policy is told, with a policy that writes everything down."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from reorder_core import Batch, Draw, Features, Grid, Level, PolicyStep, RunError, TaskResult
from reorder_core.model import Model
from reorder_core.recipe_sections import TrainingSection
from reorder_core.training.build import Learner, Parts
from reorder_core.training.step import train_step
from reorder_core.training.trainer import Trainer

GRID = Grid(2, 2)


class LastToken(nn.Module):
    width, attention, order_sensitive, orders = 8, "causal", True, 1

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, tokens_BND, layout):
        self.seen.append((layout.perm_GN.tolist(), None if layout.group_B is None else layout.group_B.tolist()))
        weight_N = torch.arange(1.0, 5.0)
        return Features((Level(tokens_BND, layout),), (tokens_BND * weight_N[:, None]).sum(1))


class Squares(nn.Module):
    primary, higher_is_better, batch_coupled = "top1", True, False

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 1)
        self.steps = []

    def prepare(self, batch, generator):
        return batch

    def step(self, run, batch, order):
        guess_B = self.head(run(batch.images_BCHW, order).summary_BD)[:, 0]
        return TaskResult((guess_B - batch.target) ** 2, guess_B)

    def after_step(self, step):
        self.steps.append(step)

    def score_B(self, result, batch):
        return (result.loss_B < 1).float()


class Recorder(nn.Module):
    """Two orders in turn, each image also read in the other one; learns from a hard score or a soft matrix."""

    orders_per_image, learning_rate = 2, 0.1

    def __init__(self, soft=False):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(4, 4))
        self.soft, self.outcomes, self.draws = soft, [], 0

    def temperature(self, clock):
        return 0.5

    def draw(self, batch, tokens_BND, temperature):
        self.draws += 1
        if self.soft:
            matrix_NN = torch.eye(4) + self.scores
            return Draw(torch.arange(4)[None], torch.zeros(batch, dtype=torch.long), soft=lambda x: matrix_NN @ x)
        group_B = torch.arange(batch) % 2
        perm_GN = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
        return Draw(perm_GN, group_B, extra_MB=1 - group_B[None], log_prob_G=self.scores.sum() * torch.ones(2))

    def best(self, tokens_BND=None):
        return torch.tensor([1, 0, 2, 3])

    def observe(self, draw, outcome):
        self.outcomes.append(outcome)
        return PolicyStep(None if self.soft else -draw.log_prob_G.sum(), {"seen": 1.0})


def trainer(policy, **training) -> Trainer:
    torch.manual_seed(0)
    section = TrainingSection(
        **{"epochs": 3, "batch_size": 4, "phases": {"unit": "steps", "warm_up": 1, "learn": 2}} | training
    )
    recipe = SimpleNamespace(training=section, seed=0, task=SimpleNamespace(settings=None))
    data = SimpleNamespace(train=range(8), validation=range(4), in_memory=True)
    learner = Learner(Model(LastToken(), GRID, 2, 1), Squares())
    parts = Parts(recipe, GRID, data, np.array([0, 2, 1, 3]), "column", policy, learner, torch.Generator())
    return Trainer.make(parts, Accelerator(cpu=True), {})


def batch() -> tuple[Batch, torch.Tensor]:
    index_B = torch.tensor([5, 1, 7, 0])
    return Batch(torch.randn(4, 1, 4, 4), torch.ones(4), index_B), index_B


def test_the_order_of_each_phase_and_what_the_policy_is_told():
    policy = Recorder()
    t = trainer(policy)
    seen = t.learner.model.backbone.seen
    for _ in range(5):
        train_step(t, *batch())
        t.step += 1
    assert policy.draws == len(policy.outcomes) == 2
    learned = [([[0, 1, 2, 3], [3, 2, 1, 0]], [0, 1, 0, 1]), ([[0, 1, 2, 3], [3, 2, 1, 0]], [1, 0, 1, 0])]
    assert seen == [([[0, 2, 1, 3]], None), *learned, *learned, *[([[1, 0, 2, 3]], None)] * 2]
    outcome = policy.outcomes[0]
    assert outcome.loss_MB.shape == (2, 4)
    assert not outcome.loss_MB.requires_grad
    assert (outcome.loss_MB[0] != outcome.loss_MB[1]).all()
    assert outcome.index_B.tolist() == [5, 1, 7, 0]
    assert (outcome.clock.step, outcome.local) == (1, slice(0, 4))
    assert t.learner.task.steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("reads", [True, False])
def test_tokens_go_to_a_policy_that_reads_them_and_to_no_other(reads):
    class Reader(Recorder):
        reads_tokens = reads

        def draw(self, batch, tokens_BND, temperature):
            self.tokens_BND = tokens_BND
            return super().draw(batch, tokens_BND, temperature)

    policy = Reader()
    t = trainer(policy)
    t.step = 1
    loaded, index_B = batch()
    embedded_BND = t.learner.model.embed(loaded.images_BCHW)  # before the step changes the weights
    train_step(t, loaded, index_B)
    if not reads:
        assert policy.tokens_BND is None
        return
    assert policy.tokens_BND.shape == (4, 4, 8)
    assert not policy.tokens_BND.requires_grad
    torch.testing.assert_close(policy.tokens_BND, embedded_BND.detach())


def test_compile_takes_the_backbone_alone_and_changes_no_loss(monkeypatch):
    """Orders are drawn and applied outside of what is compiled. The compiler itself is left out here: it is slow."""
    compiled, calls = [], []

    def compile_to_itself(module):
        compiled.append(module)
        module._compiled_call_impl = lambda *given: (calls.append(given), module._call_impl(*given))[1]

    monkeypatch.setattr(nn.Module, "compile", compile_to_itself)
    losses = {}
    for asked in (False, True):
        t = trainer(Recorder(), compile=asked)
        torch.manual_seed(1)
        losses[asked] = []
        for _ in range(4):
            losses[asked].append(train_step(t, *batch()).loss)
            t.step += 1
    assert compiled == [t.learner.model.backbone]
    assert len(calls) == 4 + 2  # once a step, and once more in each of the two steps that read a further order
    assert losses[True] == losses[False]


def test_a_hard_policy_moves_by_its_own_loss_and_the_model_does_not_feel_it():
    policy = Recorder()
    t = trainer(policy)
    t.step = 1
    result = train_step(t, *batch())
    assert torch.allclose(policy.scores, torch.full((4, 4), 0.1))  # one Adam step of its learning rate, not clipped
    assert result.policy_metrics == {"seen": 1.0}
    assert result.temperature == 0.5


def test_a_soft_policy_moves_by_the_loss_of_the_task():
    policy = Recorder(soft=True)
    t = trainer(policy)
    t.step = 1
    train_step(t, *batch())
    assert policy.scores.abs().min() > 0
    assert policy.outcomes[0].loss_MB.shape == (1, 4)
    before = policy.scores.detach().clone()
    t.step = 3  # frozen
    train_step(t, *batch())
    assert torch.equal(policy.scores, before)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched():
    t = trainer(None)
    weights = [parameter.detach().clone() for parameter in t.learner.parameters()]
    loaded, index_B = batch()
    loaded.images_BCHW[0, 0, 0, 0] = float("nan")
    with pytest.raises(RunError, match=r"the loss is not finite in step 1 .* lower training.optimizer.lr"):
        train_step(t, loaded, index_B)
    assert all(torch.equal(*pair) for pair in zip(weights, t.learner.parameters(), strict=True))


def test_averaged_weights_follow_the_weights():
    t = trainer(None, ema=0.5)
    for _ in range(3):
        train_step(t, *batch())
        t.step += 1
    moving = dict(t.ema.module.named_parameters())
    assert all(not torch.equal(moving[name], value) for name, value in t.learner.named_parameters())


def test_a_snapshot_continues_bit_for_bit():
    def losses(t: Trainer, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            torch.manual_seed(t.step)
            found.append(train_step(t, *batch()).loss)
            t.step += 1
        return found

    t = trainer(Recorder(), ema=0.9)
    losses(t, 2)
    saved = t.snapshot(17)
    again = trainer(Recorder(), ema=0.9)
    copied = {name: value.clone() for name, value in saved.tensors.items()}
    wanted = losses(t, 3)
    assert again.restore(type(saved)(copied, saved.state)) == 17
    assert losses(again, 3) == wanted
    for (name, one), other in zip(t.learner.named_parameters(), again.learner.parameters(), strict=True):
        assert torch.equal(one, other), name
