"""The task `multilabel`: losses, scores, metrics beside their references, and the picture of labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reorder_multilabel.losses import asymmetric_loss_B, binary_loss_B
from reorder_multilabel.metrics import measures, ranking_precision_B
from reorder_multilabel.picture import listed
from reorder_multilabel.settings import MultilabelSettings
from reorder_multilabel.task import Multilabel
from sklearn.metrics import average_precision_score, f1_score, label_ranking_average_precision_score
from timm.loss import AsymmetricLossMultiLabel
from torchmetrics.classification import MultilabelAveragePrecision

from reorder_core import Batch, Context, DataFacts, Features, Grid, Layout, Level, RunFacts, TaskResult, UsageError
from reorder_core.conformance import check_task, context

NAN = float("nan")
GRID = Grid(2, 2)
LAYOUT = Layout.fixed(GRID, torch.arange(4))


def batch_of(images: int, classes: int = 5, seed: int = 1, unknown: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 1, 8, 8, generator=draw)
    target_BK = (torch.rand(images, classes, generator=draw) < 0.4).float()
    target_BK[:classes, :] = torch.maximum(target_BK[:classes], torch.eye(classes)[:images])
    if unknown:
        target_BK[torch.rand(images, classes, generator=draw) < 0.2] = NAN
    return Batch(pixels, target_BK, torch.arange(images))


def where(classes: int = 5, dataset: Any = None) -> Context:
    facts = DataFacts(8, 8, 1, target="classes", classes=classes)
    return Context(GRID, 4, 1, 12, facts, dataset=dataset, generator=torch.Generator().manual_seed(0))


def run(images_BCHW: torch.Tensor, order: Layout) -> Features:
    tokens_BND = images_BCHW.flatten(1)[:, :48].reshape(-1, 4, 12)
    return Features((Level(tokens_BND, order),), tokens_BND[:, -1])


def perfect(batch: Batch) -> TaskResult:
    return TaskResult(torch.zeros(len(batch)), (batch.target.nan_to_num(nan=0.3) * 2 - 1) * 50)


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("given_settings", [{}, {"read": "mean", "norm": True, "dropout": 0.1}, {"loss": "asymmetric"}])
def test_contract(given_settings: dict[str, Any], unknown: bool) -> None:
    check_task(
        "multilabel",
        given_settings,
        where=context(GRID, patch=4, width=24, classes=5, target="classes"),
        batch=lambda size: batch_of(size, unknown=unknown),
        score_is_mean=False,
    )


@pytest.mark.parametrize("unknown", [False, True])
def test_a_perfect_prediction_scores_one(unknown: bool) -> None:
    task, batch = Multilabel(MultilabelSettings(), where()), batch_of(40, unknown=unknown)
    metrics = task.metrics()
    metrics.update(perfect(batch), batch)
    found = dict(metrics.compute())
    assert found.pop("loss") == 0
    assert found == {"map": 1, "map_micro": 1, "f1": 1, "exact_match": 1}
    assert (task.score_B(perfect(batch), batch) == 1).all()


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4, 1, 0.05), (2, 0, 0.0), (0, 0, 0.0), (3, 2, 0.2)])
def test_asymmetric_loss_is_timms_of_each_image(gamma_neg: float, gamma_pos: float, clip: float) -> None:
    batch = batch_of(9)
    logits_BK = 3 * torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    ours_B = asymmetric_loss_B(logits_BK, batch.target, gamma_neg, gamma_pos, clip)
    theirs = AsymmetricLossMultiLabel(gamma_neg, gamma_pos, clip)
    each = [theirs(logits_BK[b : b + 1], batch.target[b : b + 1]) for b in range(9)]
    torch.testing.assert_close(ours_B * 5, torch.stack(each))


def test_asymmetric_loss_without_asymmetry_is_the_binary_one() -> None:
    batch = batch_of(9, unknown=True)
    logits_BK = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        asymmetric_loss_B(logits_BK, batch.target, 0, 0, 0), binary_loss_B(logits_BK, batch.target)
    )


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_unknown_classes_cost_nothing_and_teach_nothing(loss: str) -> None:
    task = Multilabel(MultilabelSettings(loss=loss), where())
    target_BK = torch.tensor([[1, NAN, 0, NAN, NAN], [NAN] * 5, [1, 0, 0, 1, 0]])
    logits_BK = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss_B = task._loss_B(logits_BK, target_BK)
    alone = task._loss_B(logits_BK[:1, [0, 2]], target_BK[:1, [0, 2]])
    torch.testing.assert_close(loss_B[:1], alone)
    assert loss_B[1] == 0
    loss_B.sum().backward()
    assert logits_BK.grad is not None
    assert (logits_BK.grad[target_BK.isnan()] == 0).all()
    assert logits_BK.grad.isfinite().all()


def test_losses_are_finite_where_nothing_is_in_doubt() -> None:
    logits_BK = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    for loss_B in (
        binary_loss_B(logits_BK, torch.eye(2)),
        asymmetric_loss_B(logits_BK, torch.eye(2), 4, 1, 0.05),
        asymmetric_loss_B(logits_BK, torch.eye(2), 0, 0, 0),
    ):
        (slope_BK,) = torch.autograd.grad(loss_B.sum(), logits_BK)
        assert loss_B.isfinite().all()
        assert slope_BK.isfinite().all()


@given(st.integers(1, 6), st.integers(2, 30), st.integers(0, 10**6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_measures_are_the_references(classes: int, images: int, seed: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    target_SK = (draw.random((images, classes)) < 0.4).astype(float)
    target_SK[0] = 1
    logits_SK = draw.normal(size=(images, classes))
    logits_SK = logits_SK.round() if ties else logits_SK
    found = measures(logits_SK, target_SK)
    said_SK = logits_SK > 0
    torchs = MultilabelAveragePrecision(classes, average="macro") if classes > 1 else None
    if torchs is not None:
        assert found["map"] == pytest.approx(float(torchs(torch.tensor(logits_SK), torch.tensor(target_SK).long())))
    assert found["map_micro"] == pytest.approx(average_precision_score(target_SK, logits_SK, average="micro"))
    flat = f1_score(target_SK.ravel(), said_SK.ravel(), zero_division=0)
    assert found["f1"] == pytest.approx(flat)
    assert found["exact_match"] == pytest.approx(float((said_SK == (target_SK > 0)).all(1).mean()))
    if classes > 1:
        ranks_B = ranking_precision_B(torch.tensor(logits_SK), torch.tensor(target_SK))
        theirs = label_ranking_average_precision_score(target_SK, logits_SK)
        assert float(ranks_B.mean()) == pytest.approx(theirs, abs=1e-6)


def test_a_case_by_hand() -> None:
    logits_SK = np.array([[2.0, -1.0, -9], [1.0, 3.0, -9], [-1.0, 2.0, -9]])
    target_SK = np.array([[1.0, 0.0, 0], [0.0, 0.0, 0], [1.0, 1.0, 0]])
    found = measures(logits_SK, target_SK)
    # class 0 is ranked right, wrong, right: (1 + 2/3) / 2; class 1 wrong, right: 1/2; class 2 has no positive
    assert found["map"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert found["f1"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["exact_match"] == pytest.approx(1 / 3)
    score_B = ranking_precision_B(torch.tensor(logits_SK), torch.tensor(target_SK))
    torch.testing.assert_close(score_B, torch.tensor([1.0, 1.0, (1 + 2 / 2) / 2]))


def test_what_is_unknown_is_left_out_of_every_measure() -> None:
    draw = np.random.default_rng(0)
    logits_SK, target_SK = draw.normal(size=(30, 4)), (draw.random((30, 4)) < 0.5).astype(float)
    before = measures(logits_SK, target_SK)
    logits = np.concatenate([logits_SK, draw.normal(size=(30, 1))], axis=1)
    target = np.concatenate([target_SK, np.full((30, 1), NAN)], axis=1)
    assert measures(logits, target) == before
    with_unknown = ranking_precision_B(torch.tensor(logits), torch.tensor(target))
    torch.testing.assert_close(with_unknown, ranking_precision_B(torch.tensor(logits_SK), torch.tensor(target_SK)))
    nothing = measures(np.full((2, 3), -1.0), np.zeros((2, 3)))
    assert np.isnan(nothing["map"])
    assert (nothing["f1"], nothing["exact_match"]) == (1, 1)


def test_head_reads_the_summary_or_the_mean_and_answers_in_float32() -> None:
    batch = batch_of(3)
    for read, of in (("summary", lambda f: f.summary_BD), ("mean", lambda f: f.levels[-1].tokens_BND.mean(1))):
        task = Multilabel(MultilabelSettings(read=read), where())
        features = run(batch.images_BCHW, LAYOUT)
        torch.testing.assert_close(task.predict(features), task.head(of(features)))
        with torch.autocast("cpu", torch.bfloat16):
            result = task.step(run, batch, LAYOUT)
        assert (result.prediction.dtype, result.loss_B.dtype) == (torch.float32, torch.float32)


def test_padding_is_no_part_of_the_mean() -> None:
    task, batch = Multilabel(MultilabelSettings(read="mean"), where()), batch_of(2)
    valid_BN = torch.tensor([[True, True, False, False], [True, False, False, True]])
    features = run(batch.images_BCHW, Layout(GRID, LAYOUT.perm_GN, valid_BN=valid_BN))
    tokens_BND = features.levels[0].tokens_BND
    mean_BD = torch.stack([tokens_BND[0, :2].mean(0), tokens_BND[1, [0, 3]].mean(0)])
    torch.testing.assert_close(task.predict(features), task.head(mean_BD))


def test_picture_of_labels(tmp_path: Path) -> None:
    dataset = SimpleNamespace(classes=("cat", "dog", "a very long name of a class", "another long name", "tree"))
    task, batch = Multilabel(MultilabelSettings(), where(dataset=dataset)), batch_of(11, unknown=True)
    path = tmp_path / "labels.png"
    task.draw_prediction(batch, perfect(batch), LAYOUT, path)
    with Image.open(path) as picture:
        assert picture.size[0] >= 800
    assert listed(dataset.classes, torch.tensor([1, 1, 0, 0, 0])) == "cat, dog"
    assert listed(dataset.classes, torch.zeros(5)) == "nothing"
    assert listed(dataset.classes, torch.ones(5)).endswith(" …")


@pytest.mark.parametrize(
    ("facts", "given_settings", "key", "says"),
    [
        (DataFacts(8, 8, 1, target="class", classes=3), {}, "name", "set data.target to classes"),
        (DataFacts(8, 8, 1, target="classes"), {}, "name", "how many classes"),
        (DataFacts(8, 8, 1, target="classes", classes=3), {"clip": 0.1}, "clip", "add loss: asymmetric"),
        (
            DataFacts(8, 8, 1, target="classes", classes=3),
            {"loss": "asymmetric", "gamma_neg": 0.5},
            "gamma_neg",
            "take 0, or at least 1",
        ),
    ],
)
def test_problems(facts: DataFacts, given_settings: dict[str, Any], key: str, says: str) -> None:
    (problem,) = MultilabelSettings(**given_settings).problems(RunFacts(facts, GRID, 4, 8, "learned"))
    assert problem.key == key
    assert says in problem.message


def test_other_data_is_refused_with_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"set data\.target to classes"):
        Multilabel(MultilabelSettings(), context(GRID, patch=4))
    good = RunFacts(DataFacts(8, 8, 1, target="classes", classes=3), GRID, 4, 8, "learned")
    assert list(MultilabelSettings(loss="asymmetric", gamma_pos=0).problems(good)) == []
    written_out = MultilabelSettings(**MultilabelSettings().model_dump())
    assert list(written_out.problems(good)) == [], "a run's own recipe names every setting, and can be read again"
