"""The task `classification`: losses, scores, metrics, mixing, and the picture of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from reorder_classification.settings import ClassificationSettings
from reorder_classification.task import Classification

from reorder_core import Batch, Context, DataFacts, Features, Grid, Layout, RunFacts, TaskResult, UsageError
from reorder_core.conformance import check_task

WIDTH = 12


def task_of(classes: int = 10, **given_settings: Any) -> Classification:
    facts = DataFacts(height=8, width=8, channels=1, classes=classes)
    generator = torch.Generator().manual_seed(0)
    context = Context(Grid(2, 2), patch=4, width=WIDTH, data=facts, generator=generator)
    return Classification(ClassificationSettings(**given_settings), context)


def batch_of(images: int, classes: int = 10, channels: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, channels, 8, 8, generator=draw)
    return Batch(pixels, torch.randint(classes, (images,), generator=draw), torch.arange(images))


def run(images_BCHW: torch.Tensor, order: object) -> Features:
    return Features((), images_BCHW.flatten(1)[:, :WIDTH])


def perfect(batch: Batch, classes: int = 10) -> TaskResult:
    logits = torch.nn.functional.one_hot(batch.target, classes).float() * 50
    return TaskResult(torch.zeros(len(batch)), logits)


@pytest.mark.parametrize(
    "given_settings",
    [{}, {"norm": True, "label_smoothing": 0.1}, {"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}],
)
def test_contract(given_settings: dict[str, Any]) -> None:
    check_task("classification", given_settings)


@pytest.mark.parametrize("classes", [2, 5, 6, 10])
def test_a_perfect_prediction_scores_one(classes: int) -> None:
    task, batch = task_of(classes), batch_of(40, classes)
    metrics = task.metrics()
    metrics.update(perfect(batch, classes), batch)
    found = metrics.compute()
    assert found["top1"] == 1
    assert ("top5" in found) == (classes > 5), "with five classes or fewer, top-5 is always right and says nothing"
    assert (task.score_B(perfect(batch, classes), batch) == 1).all()


def test_loss_is_cross_entropy_of_each_image_and_smoothing_counts_in_training_only() -> None:
    batch, smooth = batch_of(16), task_of(label_smoothing=0.2)
    layout = Layout.fixed(Grid(2, 2), torch.arange(4))
    smooth.train()
    trained = smooth.step(run, batch, layout)
    log_prob_BK = trained.prediction.log_softmax(1)
    hard_B = -log_prob_BK.gather(1, batch.target[:, None])[:, 0]
    torch.testing.assert_close(trained.loss_B, 0.8 * hard_B - 0.2 * log_prob_BK.mean(1))
    smooth.eval()
    torch.testing.assert_close(smooth.step(run, batch, layout).loss_B, hard_B)


@given(st.integers(6, 20), st.integers(1, 30), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_metrics_are_the_definitions(classes: int, images: int, seed: int) -> None:
    task, batch = task_of(classes), batch_of(images, classes)
    logits_BK = torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))
    result = TaskResult(torch.rand(images), logits_BK)
    metrics = task.metrics()
    cut = images // 2
    for part in (slice(0, cut), slice(cut, images)):
        if part.stop > part.start:
            piece = Batch(batch.images_BCHW[part], batch.target[part], batch.index_B[part])
            metrics.update(TaskResult(result.loss_B[part], logits_BK[part]), piece)
    found = metrics.compute()
    rank_B = (logits_BK > logits_BK.gather(1, batch.target[:, None])).sum(1)
    assert found["top1"] == pytest.approx(float((rank_B < 1).float().mean()))
    assert found["top5"] == pytest.approx(float((rank_B < 5).float().mean()))
    assert found["loss"] == pytest.approx(float(result.loss_B.mean()), abs=1e-6)
    assert float(task.score_B(result, batch).mean()) == pytest.approx(found["top1"])


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("kind", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_mixing(kind: dict[str, float], mode: str) -> None:
    task, batch = task_of(mix_mode=mode, **kind), batch_of(16)
    before = batch.images_BCHW.clone()
    numpy_before = np.random.get_state()[1].tolist()
    mixed = task.prepare(batch, torch.Generator().manual_seed(7))
    again = task.prepare(batch, torch.Generator().manual_seed(7))
    other = task.prepare(batch, torch.Generator().manual_seed(8))
    torch.testing.assert_close(batch.images_BCHW, before, rtol=0, atol=0)
    torch.testing.assert_close(mixed.images_BCHW, again.images_BCHW, rtol=0, atol=0)
    torch.testing.assert_close(mixed.target, again.target, rtol=0, atol=0)
    assert not torch.equal(mixed.images_BCHW, other.images_BCHW)
    assert np.random.get_state()[1].tolist() == numpy_before
    assert mixed.target.shape == (16, 10)
    torch.testing.assert_close(mixed.target.sum(1), torch.ones(16))
    torch.testing.assert_close(mixed.index_B, batch.index_B)
    result = task.step(run, mixed, Layout.fixed(Grid(2, 2), torch.arange(4)))
    expected_B = -(mixed.target * result.prediction.log_softmax(1)).sum(1)
    torch.testing.assert_close(result.loss_B, expected_B)


def test_mixup_targets_tell_the_mixture() -> None:
    batch = batch_of(8)
    mixed = task_of(mixup=1.0).prepare(batch, torch.Generator().manual_seed(3))
    share = (mixed.images_BCHW - batch.images_BCHW.flip(0)) / (batch.images_BCHW - batch.images_BCHW.flip(0))
    share = float(share.median())
    one_hot = torch.nn.functional.one_hot(batch.target, 10).float()
    torch.testing.assert_close(mixed.target, share * one_hot + (1 - share) * one_hot.flip(0), atol=1e-4, rtol=0)


def test_without_mixing_the_batch_is_itself_and_nothing_is_drawn() -> None:
    generator, batch = torch.Generator().manual_seed(3), batch_of(5)
    before = generator.get_state()
    assert task_of().prepare(batch, generator) is batch
    assert torch.equal(generator.get_state(), before)


def test_picture_of_predictions(tmp_path: Path) -> None:
    task = task_of()
    for channels in (1, 3):
        batch = batch_of(11, channels=channels)
        path = tmp_path / f"{channels}.png"
        orders = Layout(Grid(2, 2), torch.stack([torch.arange(4), torch.arange(4).flip(0)]), torch.arange(11) % 2)
        task.draw_prediction(batch, perfect(batch), orders if channels == 1 else None, path)
        with Image.open(path) as picture:
            assert picture.size[0] >= 800


def test_head_is_drawn_from_the_runs_generator() -> None:
    one, two = task_of(), task_of()
    torch.testing.assert_close(one.head.weight, two.head.weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("facts", "given_settings", "batch_size", "key", "says"),
    [
        (DataFacts(8, 8, 1, target="boxes"), {}, 4, "name", "one class an image"),
        (DataFacts(8, 8, 1), {}, 4, "name", "how many classes"),
        (DataFacts(8, 8, 1, classes=1), {}, 4, "name", "at least 2"),
        (DataFacts(8, 8, 1, classes=10), {"cutmix": 1.0}, 5, "cutmix", "even batch size, not 5"),
    ],
)
def test_problems(facts: DataFacts, given_settings: dict[str, float], batch_size: int, key: str, says: str) -> None:
    run_facts = RunFacts(facts, Grid(2, 2), 4, batch_size, "learned")
    (problem,) = ClassificationSettings(**given_settings).problems(run_facts)
    assert problem.key == key
    assert says in problem.message


def test_no_problems_in_a_good_run() -> None:
    run_facts = RunFacts(DataFacts(8, 8, 1, classes=10), Grid(2, 2), 4, 5, "learned")
    assert list(ClassificationSettings().problems(run_facts)) == []


def test_refusals() -> None:
    with pytest.raises(UsageError, match="even batch, not one of 5"):
        task_of(mixup=0.5).prepare(batch_of(5), torch.Generator())
    with pytest.raises(UsageError, match="one class an image"):
        Classification(ClassificationSettings(), Context(Grid(2, 2), width=WIDTH))
    with pytest.raises(ValidationError, match="label_smoothing"):
        ClassificationSettings(label_smoothing=1.0)
