"""Phases, learning rate and batches: pure functions of the step, for any number of processes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reorder_core import Batch, RunError, UsageError
from reorder_core.recipe_sections import TrainingSection
from reorder_core.training.loader import Plan, Shares, steps_in_epoch, training_batches, validation_batches
from reorder_core.training.optimizer import parameter_groups
from reorder_core.training.phases import learning_rate, timetable


def section(**changes) -> TrainingSection:
    return TrainingSection(**{"epochs": 10, "batch_size": 4, "phases": {"warm_up": 2, "learn": 5}} | changes)


def test_the_three_phases_in_epochs_and_in_steps():
    table = timetable(section(), steps_per_epoch=7, has_policy=True)
    assert [table.phase(step) for step in (0, 13, 14, 48, 49, 69)] == [
        *["warm_up"] * 2,
        *["learn"] * 2,
        *["frozen"] * 2,
    ]
    steps = timetable(section(phases={"unit": "steps", "warm_up": 3, "learn": 4}), 7, has_policy=True)
    assert [steps.phase(step) for step in (2, 3, 6, 7)] == ["warm_up", "learn", "learn", "frozen"]
    assert table.clock(14).learning
    assert table.clock(14).progress == 0
    assert table.clock(49).progress == 1
    assert {timetable(section(), 7, has_policy=False).phase(step) for step in range(70)} == {"fixed"}


def test_phases_longer_than_the_run():
    with pytest.raises(UsageError, match="take 84 steps, but the run has 70"):
        timetable(section(phases={"warm_up": 2, "learn": 10}), 7, has_policy=True)


def test_the_learning_rate_is_held_while_the_policy_learns_also_in_its_controls():
    training = section(optimizer={"lr": 1.0}, schedule={"warm_up": 1, "final": 0.01})
    main, control = timetable(training, 7, True), timetable(training, 7, False, holds=True)
    rates = [learning_rate(training, main, step) for step in range(70)]
    assert rates == [learning_rate(training, control, step) for step in range(70)]
    assert rates[0] == pytest.approx(1 / 7)
    assert rates[6:49] == [1.0] * 43
    assert rates[-1] == pytest.approx(0.01)
    alone = timetable(training, 7, has_policy=False)
    assert learning_rate(training, alone, 20) < 1


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 5), processes=st.integers(1, 4), steps=st.integers(1, 4), start=st.integers(0, 7))
def test_processes_share_what_one_process_would_read(batch, processes, steps, start):
    images = batch * processes * steps
    alone = Plan(images, 5, batch * processes, steps)
    stop = start + 3
    wanted = [(epoch, index_B.tolist()) for epoch, index_B, _ in alone.from_step(start, stop)]
    parts = [list(Plan(images, 5, batch, steps, Shares(p, processes)).from_step(start, stop)) for p in range(processes)]
    for number, (epoch, index) in enumerate(wanted):
        assert all(part[number][0] == epoch for part in parts)
        assert torch.cat([part[number][2] for part in parts]).tolist() == index


def test_every_epoch_shows_every_image_once_in_another_order():
    plan = Plan(12, 0, 4, 3)
    shown = [torch.cat([index_B for _, index_B, _ in plan.from_step(3 * e, 3 * e + 3)]).tolist() for e in range(3)]
    assert [sorted(epoch) for epoch in shown] == [list(range(12))] * 3
    assert shown[0] != shown[1] != shown[2]


@settings(max_examples=30, deadline=None)
@given(images=st.integers(0, 50), processes=st.integers(1, 7))
def test_validation_images_are_split_evenly_and_counted_once(images, processes):
    chunks = [Shares(process, processes).chunk(images) for process in range(processes)]
    assert [index for chunk in chunks for index in chunk] == list(range(images))
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


def test_too_few_images_for_a_batch():
    assert steps_in_epoch(11, 4, None) == 2
    with pytest.raises(UsageError, match="fewer than one batch of 12"):
        steps_in_epoch(11, 12, None)
    with pytest.raises(UsageError, match="make only 2 batches"):
        steps_in_epoch(11, 4, 3)


class Numbers:
    """A split whose image n is filled with n, and whose image 99 cannot be read."""

    def __len__(self) -> int:
        return 100

    def load(self, indices, epoch):
        if 99 in indices:
            raise RunError("image 99 cannot be read: take it out")
        index_B = torch.tensor(indices)
        return Batch(index_B.float().view(-1, 1, 1, 1) + epoch / 10, index_B, index_B)


class NumberData:
    train = validation = Numbers()
    in_memory = False


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_from_any_number_of_workers(workers):
    plan = Plan(90, 1, 10, 9)
    before = torch.get_rng_state()
    for (batch, index_B), (epoch, wanted_B, _) in zip(
        training_batches(NumberData(), plan, 5, 12, workers), plan.from_step(5, 12), strict=True
    ):
        assert torch.equal(index_B, wanted_B)
        assert torch.equal(batch.index_B, wanted_B)
        assert torch.allclose(batch.images_BCHW.flatten(), wanted_B + epoch / 10)
    assert torch.equal(torch.get_rng_state(), before)  # a resume that starts the loader again changes nothing


def test_an_error_in_a_worker_arrives_as_one_sentence():
    with pytest.raises(RunError, match=r"^image 99 cannot be read: take it out$"):
        list(validation_batches(NumberData(), range(90, 100), 5, workers=1))


def test_no_decay_on_biases_norms_positions_and_what_says_so():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.norm = nn.LayerNorm(4)
            self.position_ND = nn.Parameter(torch.zeros(5, 4))
            self.position_ND._no_weight_decay = True
            self.token = nn.Parameter(torch.zeros(1, 1, 4))

        def no_weight_decay(self):
            return {"token"}

    net = Net()
    with_decay, without = parameter_groups(nn.Sequential(net), 0.05)
    assert with_decay == {"params": [net.linear.weight], "weight_decay": 0.05}
    assert without["weight_decay"] == 0
    assert len(without["params"]) == 5
