"""The task `segmentation`: losses and metrics beside their references, places on the grid, and the picture of masks."""

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
from reorder_hierarchical.merging import side_by_side, side_by_side_on_grid
from reorder_segmentation.grid import on_grid
from reorder_segmentation.heads import LinearHead
from reorder_segmentation.losses import dice_loss_B, pixel_loss_B
from reorder_segmentation.metrics import image_miou_B
from reorder_segmentation.settings import SegmentationSettings
from reorder_segmentation.task import Segmentation
from sklearn.metrics import accuracy_score, jaccard_score
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassJaccardIndex

from reorder_core import Batch, Context, DataFacts, Draw, Grid, Layout, Level, RunFacts, TaskResult, UsageError
from reorder_core.conformance import check_task, context
from reorder_core.conformance.building import build
from reorder_core.interfaces.targets import IGNORED
from reorder_core.model import Model

K = 5


def masks(images: int, side: int = 8, classes: int = K, seed: int = 1, unknown: float = 0.1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    mask_BHW = torch.randint(classes, (images, side, side), generator=draw)
    mask_BHW[torch.rand(mask_BHW.shape, generator=draw) < unknown] = IGNORED
    return mask_BHW


def batch_of(images: int, side: int = 8, **given_masks: Any) -> Batch:
    pixels = torch.randn(images, 1, side, side, generator=torch.Generator().manual_seed(3))
    return Batch(pixels, masks(images, side, **given_masks), torch.arange(images))


def where(side: int = 8, patch: int = 4, width: int = 24, dataset: Any = None) -> Context:
    facts = DataFacts(side, side, 1, target="mask", classes=K)
    grid = Grid(side // patch, side // patch)
    return Context(grid, patch, 1, width, facts, dataset=dataset, generator=torch.Generator().manual_seed(0)).changed()


def perfect(batch: Batch) -> TaskResult:
    known = batch.target != IGNORED
    return TaskResult(torch.zeros(len(batch)), batch.target.where(known, 2))


HEADS: list[dict[str, Any]] = [
    {},
    {"dropout": 0.1, "stride": 2, "class_weights": [1, 2, 3, 1, 0.5]},
    {"head": "pyramid", "width": 20, "dropout": 0.1},
    {"head": "pyramid", "width": 12, "stride": 4, "dice": 0.7},
]


@pytest.mark.parametrize("given_settings", HEADS)
def test_contract(given_settings: dict[str, Any]) -> None:
    def batch(size: int) -> Batch:
        made = batch_of(size, unknown=0.2)
        made.target[1] = IGNORED
        return made

    task_where = context(Grid(2, 2), patch=4, width=24, classes=K, target="mask")
    check_task("segmentation", given_settings, where=task_where, batch=batch, score_is_mean=False)


def test_a_perfect_prediction_scores_one() -> None:
    task, batch = Segmentation(SegmentationSettings(per_class=True), where()), batch_of(6)
    batch.target[2] = IGNORED
    metrics = task.metrics()
    metrics.update(perfect(batch), batch)
    found = dict(metrics.compute())
    assert found.pop("loss") == 0
    assert found == {"miou": 1, "pixel_accuracy": 1, **{f"iou_{k}": 1 for k in range(K)}}
    assert (task.score_B(perfect(batch), batch) == 1).all()


@pytest.mark.parametrize("weights", [None, [1.0, 0.2, 3.0, 2.0, 0.5]])
def test_cross_entropy_is_pytorchs_of_each_image(weights: list[float] | None) -> None:
    mask_BHW = masks(4, unknown=0.3)
    mask_BHW[3] = IGNORED
    logits_BKHW = torch.randn(4, K, 8, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weight_K = None if weights is None else torch.tensor(weights)
    loss_B = pixel_loss_B(logits_BKHW, mask_BHW, weight_K)
    for b in range(3):
        alone = cross_entropy(logits_BKHW[b : b + 1], mask_BHW[b : b + 1], weight_K, ignore_index=IGNORED)
        torch.testing.assert_close(loss_B[b], alone)
    assert loss_B[3] == 0
    (loss_B + dice_loss_B(logits_BKHW, mask_BHW)).sum().backward()
    assert logits_BKHW.grad is not None
    assert logits_BKHW.grad.isfinite().all()
    assert (logits_BKHW.grad.transpose(0, 1)[:, mask_BHW == IGNORED] == 0).all()


def test_dice_by_hand_and_of_a_sure_and_right_image() -> None:
    probability_2HW = torch.tensor([[[0.8, 0.6], [0.3, 0.5]], [[0.2, 0.4], [0.7, 0.5]]])
    mask_HW = torch.tensor([[0, 0], [1, IGNORED]])
    dice = [2 * 1.4 / (1.7 + 2), 2 * 0.7 / (1.3 + 1)]
    found_B = dice_loss_B(probability_2HW.log()[None], mask_HW[None])
    torch.testing.assert_close(found_B, torch.tensor([1 - sum(dice) / 2]))
    sure = torch.nn.functional.one_hot(masks(2, unknown=0), K).permute(0, 3, 1, 2) * 60.0
    torch.testing.assert_close(dice_loss_B(sure, masks(2, unknown=0)), torch.zeros(2))


@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_metrics_are_the_references(images: int, classes: int, seed: int) -> None:
    batch = batch_of(images, seed=seed, classes=classes, unknown=0.2)
    predicted_BHW = masks(images, seed=seed + 1, classes=max(1, classes - 1), unknown=0)
    facts = DataFacts(8, 8, 1, target="mask", classes=7)  # the last ones are nowhere
    made_in = Context(Grid(2, 2), 4, 1, 24, facts, generator=torch.Generator().manual_seed(0))
    task = Segmentation(SegmentationSettings(per_class=True), made_in)
    result = TaskResult(torch.arange(images).float(), predicted_BHW)
    metrics = task.metrics()
    metrics.update(result, batch)
    found = metrics.compute()
    known = batch.target != IGNORED
    true, said = batch.target[known].numpy(), predicted_BHW[known].numpy()
    labels = sorted({*true.tolist(), *said.tolist()})
    each = jaccard_score(true, said, average=None, labels=labels)
    torchs = MulticlassJaccardIndex(7, ignore_index=IGNORED)(predicted_BHW, batch.target)
    assert found["miou"] == pytest.approx(float(np.mean(each))) == pytest.approx(float(torchs))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(true, said))
    assert found["loss"] == pytest.approx((images - 1) / 2)
    assert {name: value for name, value in found.items() if name.startswith("iou_")} == pytest.approx(
        {f"iou_{label}": value for label, value in zip(labels, each, strict=True)}
    )
    alone = [
        jaccard_score(
            one[seen], said_one[seen], average="macro", labels=sorted({*one[seen].tolist(), *said_one[seen].tolist()})
        )
        for one, said_one, seen in zip(batch.target, predicted_BHW, known, strict=True)
    ]
    torch.testing.assert_close(task.score_B(result, batch), torch.tensor(alone).float())


def test_mean_iou_of_an_image_by_hand() -> None:
    mask_BHW = torch.tensor([[[0, 0], [1, IGNORED]], [[2, 2], [2, 2]], [[IGNORED] * 2] * 2])
    said_BHW = torch.tensor([[[0, 1], [1, 3]], [[2, 2], [2, 2]], [[0, 1], [2, 3]]])
    torch.testing.assert_close(image_miou_B(said_BHW, mask_BHW, 4), torch.tensor([0.5, 1.0, 1.0]))


def orders(count: int, N: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(N, generator=draw) for _ in range(count)])


@pytest.mark.parametrize("given_settings", HEADS)
@pytest.mark.parametrize(
    ("backbone", "of"),
    [
        ("vit", {"width": 24, "depth": 2, "heads": 3}),
        ("hierarchical", {"mixer": {"name": "vit", "heads": 2}, "widths": [8, 16], "depths": [1, 1], "merge": "grid"}),
    ],
)
def test_predictions_do_not_depend_on_the_order_of_a_model_that_is_blind_to_it(
    backbone: str, of: dict[str, Any], given_settings: dict[str, Any]
) -> None:
    """One order, an order for each group (a policy's draw) and row by row: the same logits in the same places."""
    here, batch = context(Grid(4, 4), patch=4, classes=K, target="mask"), batch_of(4, side=16)
    built = build("backbone", backbone, of, here)
    assert not built.order_sensitive
    model = Model(built, here.grid, 4, 1, "sincos2d").eval()
    levels = {"level_widths": of["widths"]} if "widths" in of else {}
    task = Segmentation(SegmentationSettings(**given_settings, **levels), here.changed(width=built.width)).eval()
    rows = Layout.fixed(here.grid, torch.arange(16))
    expected = task.predict(model(batch.images_BCHW, rows))
    assert expected.shape == (4, K, 16, 16)
    group_B = torch.tensor([1, 0, 2, 1])
    for order in (
        Layout.fixed(here.grid, orders(1, 16, 0)[0]),
        Draw(orders(3, 16, 1), group_B),
    ):
        torch.testing.assert_close(task.predict(model(batch.images_BCHW, order)), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(task.step(model, batch, order).loss_B, task.step(model, batch, rows).loss_B)


@given(st.integers(2, 7), st.integers(2, 7), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_merged_tokens_come_back_to_the_patches_they_hold(rows: int, columns: int, by_grid: bool, seed: int) -> None:
    grid, merge = Grid(rows, columns), side_by_side_on_grid if by_grid else side_by_side
    layout = Layout(grid, orders(2, grid.size, seed), torch.tensor([0, 1, 1]))
    patches_BN1 = torch.arange(1.0, grid.size + 1)[None, :, None].expand(3, -1, -1)
    tokens_BND, layouts = layout.order(patches_BN1), [layout]
    for level in (1, 2):
        tokens_BND, (after,) = merge(tokens_BND, [layouts[-1]], 2)
        layouts.append(after)
        back_BND = on_grid(tokens_BND, layouts, level)
        assert (back_BND == patches_BN1).any(dim=2).all(), "every patch meets the token that it went into"


def test_a_token_says_its_own_pixels_only_with_the_linear_head() -> None:
    head = LinearHead([6], K, 4, 0.0)
    layout = Layout.fixed(Grid(2, 3), torch.tensor([4, 2, 0, 5, 1, 3]))
    tokens_BND = torch.randn(1, 6, 6)
    before = head([Level(tokens_BND, layout)])
    tokens_BND[0, 1] += 1  # slot 1 holds patch 2: first row, third column
    changed_HW = (head([Level(tokens_BND, layout)]) != before).any(dim=1)[0]
    expected_HW = torch.zeros(8, 12, dtype=torch.bool)
    expected_HW[:4, 8:] = True
    assert torch.equal(changed_HW, expected_HW)


def test_levels_that_are_not_those_of_the_settings_are_refused() -> None:
    here, batch = context(Grid(4, 4), patch=4, classes=K, target="mask"), batch_of(2, side=16)
    of = {"mixer": "mamba", "widths": [8, 16, 24], "depths": [1, 1, 1]}
    built = build("backbone", "hierarchical", of, here)
    model, inner = Model(built, here.grid, 4, 1), here.changed(width=built.width)
    rows = Layout.fixed(here.grid, torch.arange(16))
    for widths in (None, [8, 16], [4, 8, 16, 24]):
        task = Segmentation(SegmentationSettings(level_widths=widths), inner)
        with pytest.raises(UsageError, match=r"task\.level_widths: .* write level_widths: \[8, 16, 24\], or its last"):
            task.step(model, batch, rows)
    for widths in ([24], [16, 24], [8, 16, 24]):
        task = Segmentation(SegmentationSettings(level_widths=widths, head="pyramid"), inner)
        loss_B = task.step(model, batch, rows).loss_B
        assert loss_B.isfinite().all()
    with pytest.raises(UsageError, match="masks of 8x8 pixels"):
        task.step(model, Batch(batch.images_BCHW, masks(2), batch.index_B), rows)


def test_losses_are_float32_under_autocast() -> None:
    here, batch = context(Grid(2, 2), patch=4, classes=K, target="mask"), batch_of(2)
    model = Model(build("backbone", "vit", {"width": 24}, here), here.grid, 4, 1)
    task = Segmentation(SegmentationSettings(head="pyramid", dice=1), here.changed(width=24))
    with torch.autocast("cpu", torch.bfloat16):
        result = task.step(model, batch, Layout.fixed(here.grid, torch.arange(4)))
    assert result.loss_B.dtype == torch.float32
    assert result.prediction.shape == (2, 8, 8)


def test_weights_are_drawn_from_the_runs_generator() -> None:
    one, two = (Segmentation(SegmentationSettings(head="pyramid"), where()) for _ in range(2))
    for name, values in one.named_parameters():
        torch.testing.assert_close(values, two.get_parameter(name), rtol=0, atol=0)


def test_picture_of_masks(tmp_path: Path) -> None:
    dataset = SimpleNamespace(classes=("background", "cat", "dog", "tree", "house"))
    task, batch = Segmentation(SegmentationSettings(), where(dataset=dataset)), batch_of(5)
    layout = Layout(Grid(2, 2), orders(2, 4, 0), torch.tensor([0, 1, 0, 1, 1]))
    path = tmp_path / "masks.png"
    task.draw_prediction(batch, perfect(batch), layout, path)
    with Image.open(path) as picture:
        assert picture.size[0] >= 1500
    assert task.names == dataset.classes
    batch.target[:] = IGNORED
    task.draw_prediction(batch, perfect(batch), None, path)


@pytest.mark.parametrize(
    ("facts", "given_settings", "key", "says"),
    [
        (DataFacts(8, 8, 1, target="boxes", classes=3), {}, "name", "set data.target to mask"),
        (DataFacts(8, 8, 1, target="mask"), {}, "name", "an unknown number"),
        (DataFacts(8, 8, 1, target="mask", classes=256), {}, "name", "2 to 255 classes"),
        (DataFacts(8, 8, 1, target="mask", classes=3), {"class_weights": [1, 2]}, "class_weights", "each of the 3"),
        (DataFacts(8, 8, 1, target="mask", classes=3), {"stride": 3}, "stride", "does not divide the patch of 4"),
    ],
)
def test_problems(facts: DataFacts, given_settings: dict[str, Any], key: str, says: str) -> None:
    (problem,) = SegmentationSettings(**given_settings).problems(RunFacts(facts, Grid(2, 2), 4, 8, "learned"))
    assert problem.key == key
    assert says in problem.message


def test_other_data_is_refused_with_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"set data\.target to mask"):
        Segmentation(SegmentationSettings(), context(Grid(2, 2), patch=4))
    good = RunFacts(DataFacts(8, 8, 1, target="mask", classes=3), Grid(2, 2), 4, 8, "learned")
    assert list(SegmentationSettings(class_weights=(1, 2, 3), stride=2).problems(good)) == []
    video = RunFacts(good.data, Grid(2, 2, 3), 4, 8, "learned")
    assert [problem.key for problem in SegmentationSettings().problems(video)] == ["name"]
