"""The task `reconstruction`: contract, masks, loss in any order, metrics, picture, and the weights it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from reorder_mamba.backbone import MambaBackbone
from reorder_mamba.settings import MambaSettings
from reorder_reconstruction.masks import Masks, covered
from reorder_reconstruction.metrics import baseline_B
from reorder_reconstruction.picture import completed
from reorder_reconstruction.settings import ReconstructionSettings
from reorder_reconstruction.task import Masked, Prediction, Reconstruction
from reorder_vit.backbone import VitBackbone
from reorder_vit.settings import VitSettings
from safetensors.torch import load_file

from reorder_core import Batch, DataFacts, Draw, Features, Grid, Layout, Level, RunFacts, TaskResult, UsageError
from reorder_core.cli.main import main
from reorder_core.conformance import check_task, context
from reorder_core.model import Model
from reorder_core.patch_pixels import normalise_patches, patchify

GRID, PATCH, CHANNELS, WIDTH = Grid(3, 4), 2, 2, 16


def task_of(**settings):
    where = context(GRID, patch=PATCH, channels=CHANNELS, width=WIDTH)
    return Reconstruction(ReconstructionSettings(**settings), where).eval()


def model_of(kind="vit"):
    where = context(GRID, width=WIDTH)
    if kind == "mamba":
        backbone = MambaBackbone(MambaSettings(width=WIDTH, depth=1, state=4), where)
    else:
        backbone = VitBackbone(VitSettings(width=WIDTH, depth=1, heads=2), where)
    return Model(backbone, GRID, PATCH, CHANNELS).eval()


def batch_of(count=5, seed=0):
    images = torch.randn(count, CHANNELS, 6, 8, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.zeros(count, dtype=torch.int64), torch.arange(10, 10 + count))


def order_of(seed=1):
    return Layout.fixed(GRID, torch.randperm(12, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    "settings",
    [{}, {"normalise": False}, {"loss": "all"}, {"head": "mlp", "mask": 0.3}, {"normalise": False, "loss": "all"}],
)
def test_holds_the_contract_of_tasks(settings):
    """With grey in place of masked patches: the free features of the check do not look at pixels."""
    check_task("reconstruction", {"fill": "grey", **settings})


@pytest.mark.parametrize("kind", ["vit", "mamba"])
def test_every_parameter_learns_the_masked_pixels_among_them(kind):
    task, model = task_of(head="mlp"), model_of(kind)
    task.step(model, batch_of(), order_of()).loss_B.mean().backward()
    assert {name for name, value in task.named_parameters() if not value.grad.abs().sum() > 0} == set()
    assert task.fill_CPP.grad.shape == (CHANNELS, PATCH, PATCH)


@given(
    st.builds(Grid, st.integers(1, 9), st.integers(2, 9)),
    st.floats(0.01, 0.99),
    st.integers(1, 4),
    st.integers(0, 2**40),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_masks_hide_a_share_in_whole_squares(grid, share, block, number):
    if block >= max(grid.rows, grid.columns):
        return
    masks = Masks(grid, share, block)
    index_B = torch.tensor([number, 3, number])
    fixed_BN, drawn_BN = masks.of_images(index_B), masks.drawn(3, torch.Generator().manual_seed(number))
    assert torch.equal(fixed_BN[0], fixed_BN[2])
    assert torch.equal(fixed_BN[1:2], masks.of_images(torch.tensor([3])))
    for mask_BN in (fixed_BN, drawn_BN):
        assert mask_BN.shape == (3, grid.size)
        assert mask_BN.any(1).all()
        assert not mask_BN.all(1).any()
        if block == 1:
            assert mask_BN.sum(1).tolist() == [min(grid.size - 1, max(1, round(share * grid.size)))] * 3
        whole = mask_BN.view(3, grid.rows, grid.columns)
        for row in range(0, grid.rows, block):
            for column in range(0, grid.columns, block):
                square = whole[:, row : row + block, column : column + block].flatten(1)
                assert (square.all(1) | ~square.any(1)).all()


def test_every_patch_is_masked_as_often_and_images_differ():
    mask_BN = Masks(GRID, 0.5).of_images(torch.arange(2000))
    share_N = mask_BN.float().mean(0)
    assert (share_N - 0.5).abs().max() < 0.06
    assert len({tuple(row) for row in mask_BN.tolist()}) > 500


def test_masked_pixels_are_replaced_and_no_others():
    images = batch_of().images_BCHW
    mask_BN = Masks(GRID, 0.5).of_images(torch.arange(5))
    fill = torch.arange(CHANNELS * PATCH**2.0).view(CHANNELS, PATCH, PATCH)
    found = covered(images, mask_BN, fill, GRID)
    for b in range(5):
        for patch in range(12):
            y, x = 2 * (patch // 4), 2 * (patch % 4)
            square = found[b, :, y : y + 2, x : x + 2]
            assert torch.equal(square, fill if mask_BN[b, patch] else images[b, :, y : y + 2, x : x + 2])


@torch.no_grad()
def test_masked_pixels_are_not_seen():
    task, model, batch, layout = task_of(), model_of(), batch_of(), order_of()
    said = task.step(model, batch, layout).prediction.said_BNP
    mask_BN = task.mask_of(batch)
    other = covered(batch.images_BCHW, mask_BN, torch.randn(CHANNELS, PATCH, PATCH), GRID)
    again = task.step(model, Batch(other, batch.target, batch.index_B), layout).prediction.said_BNP
    assert torch.equal(said, again)


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("loss", ["masked", "all"])
def test_loss_is_the_mean_squared_error_of_the_patches_that_count(normalise, loss):
    task, model, batch, layout = task_of(normalise=normalise, loss=loss), model_of(), batch_of(), order_of()
    result = task.step(model, batch, layout)
    for b in range(len(batch)):
        errors = []
        for patch in range(12):
            y, x = 2 * (patch // 4), 2 * (patch % 4)
            pixels = batch.images_BCHW[b, :, y : y + 2, x : x + 2].permute(1, 2, 0).reshape(-1)
            target = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt() if normalise else pixels
            if loss == "all" or task.mask_of(batch)[b, patch]:
                errors.append((result.prediction.said_BNP[b, patch] - target).square().mean())
        torch.testing.assert_close(result.loss_B[b], torch.stack(errors).mean())


@torch.no_grad()
def test_an_order_insensitive_backbone_says_the_same_in_every_order():
    task, model, batch = task_of(), model_of(), batch_of()
    said = [task.step(model, batch, order_of(seed)).prediction.said_BNP for seed in range(3)]
    for other in said[1:]:
        torch.testing.assert_close(other, said[0], atol=1e-5, rtol=1e-4)
    mamba = model_of("mamba")
    one, two = (task.step(mamba, batch, order_of(seed)).prediction.said_BNP for seed in range(2))
    assert not torch.allclose(one, two, atol=1e-4)


@torch.no_grad()
def test_an_order_for_each_image_is_each_order_alone():
    task, model, batch = task_of(), model_of("mamba"), batch_of(3)
    perm_GN = torch.stack([order_of(seed).perm_GN[0] for seed in range(2)])
    group_B = torch.tensor([1, 0, 1])
    together = task.step(model, batch, Draw(perm_GN, group_B)).loss_B
    for b in range(3):
        one = Batch(batch.images_BCHW[b : b + 1], batch.target[:1], batch.index_B[b : b + 1])
        alone = task.step(model, one, Layout.fixed(GRID, perm_GN[group_B[b]])).loss_B
        torch.testing.assert_close(together[b : b + 1], alone)


def test_a_soft_order_gets_the_gradient_of_the_loss():
    task, model, batch = task_of(), model_of("mamba"), batch_of(3)
    perm_N = order_of().perm_GN[0]
    soft_NN = torch.nn.functional.one_hot(perm_N, 12).float().requires_grad_()
    draw = Draw(perm_N[None], torch.zeros(3, dtype=torch.int64), soft=lambda tokens: soft_NN @ tokens)
    result = task.step(model, batch, draw)
    torch.testing.assert_close(result.loss_B, task.step(model, batch, order_of()).loss_B)
    result.loss_B.mean().backward()
    assert soft_NN.grad.abs().sum() > 0


def test_training_masks_come_from_the_generator_and_travel_with_the_batch():
    task, batch = task_of(), batch_of()
    one, two, three = (task.prepare(batch, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert isinstance(one.target, Masked)
    assert one.images_BCHW is batch.images_BCHW
    assert torch.equal(one.target.mask_BN, two.target.mask_BN)
    assert not torch.equal(one.target.mask_BN, three.target.mask_BN)
    assert torch.equal(task.step(model_of(), one, order_of()).prediction.mask_BN, one.target.mask_BN)


def perfect(task, batch):
    true_BNP = patchify(batch.images_BCHW, GRID, PATCH)
    true_BNP = normalise_patches(true_BNP) if task.settings.normalise else true_BNP
    return TaskResult(torch.zeros(len(batch)), Prediction(true_BNP, true_BNP, task.mask_of(batch)))


@pytest.mark.parametrize("normalise", [True, False])
def test_a_perfect_prediction_explains_everything(normalise):
    task, batch = task_of(normalise=normalise), batch_of()
    metrics = task.metrics()
    metrics.update(perfect(task, batch), batch)
    found = metrics.compute()
    assert (found["loss"], found["explained"]) == (0, 1)
    assert ("psnr" in found) is not normalise
    assert found.get("psnr", 101) > 100
    assert not task.score_B(perfect(task, batch), batch).any()


def test_psnr_and_baseline_are_their_definitions():
    task, model, batch = task_of(normalise=False), model_of(), batch_of()
    with torch.no_grad():
        result = task.step(model, batch, order_of())
    metrics = task.metrics()
    metrics.update(result, batch)
    found, (said, true, mask) = metrics.compute(), result.prediction
    error = (said[mask] - true[mask]).square().mean()
    peak = batch.images_BCHW.max() - batch.images_BCHW.min()
    assert found["psnr"] == pytest.approx(float(10 * torch.log10(peak**2 / error)), abs=1e-4)
    wanted = [(true[b][mask[b]] - true[b][~mask[b]].mean(0)).square().mean() for b in range(len(batch))]
    torch.testing.assert_close(baseline_B(true, mask, mask), torch.stack(wanted))
    assert found["baseline"] == pytest.approx(float(torch.stack(wanted).mean()))
    assert found["explained"] == pytest.approx(1 - found["loss"] / found["baseline"])


def test_the_picture_puts_a_right_prediction_in_its_place(tmp_path):
    for normalise in (True, False):
        task, batch = task_of(normalise=normalise), batch_of()
        prediction = perfect(task, batch).prediction
        whole = completed(batch.images_BCHW, prediction, GRID, PATCH, normalise)
        torch.testing.assert_close(whole, batch.images_BCHW, rtol=0, atol=1e-4)
    grey = Batch(torch.randn(11, 1, 6, 8), torch.zeros(11), torch.arange(11))
    task = Reconstruction(ReconstructionSettings(), context(GRID, patch=PATCH, channels=1, width=WIDTH))
    orders = Layout(GRID, torch.stack([torch.arange(12), torch.arange(12).flip(0)]), torch.arange(11) % 2)
    result = task.step(Model(model_of().backbone, GRID, PATCH, 1), grey, orders)
    task.draw_prediction(grey, result, orders, tmp_path / "one.png")
    task.draw_prediction(grey, result, None, tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size[0] >= 800


@pytest.mark.parametrize(
    ("patch", "grid", "given", "says"),
    [
        (2, Grid(3, 4), {"block": 4}, "block: one square of 4 patches covers the whole grid of 3x4"),
        (1, Grid(3, 4), {}, "normalise: a patch of one number has no variance: write normalise: false"),
    ],
)
def test_settings_that_contradict_each_other_are_a_problem(patch, grid, given, says):
    settings = ReconstructionSettings(**given)
    facts = RunFacts(DataFacts(grid.rows * patch, grid.columns * patch, 1, target="boxes"), grid, patch, 8, "learned")
    (problem,) = settings.problems(facts)
    assert f"{problem.key}: {problem.message}".startswith(says)
    with pytest.raises(UsageError, match=problem.key):
        Reconstruction(settings, context(grid, patch=patch, channels=1, width=WIDTH))


def test_a_backbone_that_merges_its_patches_is_refused():
    features = Features((Level(torch.zeros(2, 3, WIDTH), order_of()),), torch.zeros(2, WIDTH))
    with pytest.raises(
        UsageError, match="a token for each of the 12 patches, and the finest level of this backbone has 3"
    ):
        task_of().pixels_BNP(features)


def test_a_backbone_whose_finest_level_is_of_another_width_is_refused():
    features = Features(
        (Level(torch.zeros(2, 12, 8), order_of()), Level(torch.zeros(2, 6, WIDTH), order_of())), torch.zeros(2, WIDTH)
    )
    with pytest.raises(UsageError, match="tokens have 8 numbers, and those of its last level 16: choose a backbone of"):
        task_of().pixels_BNP(features)


RECIPE = """
name: {name}
seed: 0
data: {{name: digits}}
patch: {{size: 2}}
ordering: {{name: snake}}
backbone: {{name: mamba, width: 16, depth: 2, state: 4{more}}}
task: {{name: {task}}}
training: {{epochs: 1, steps_per_epoch: {steps}, batch_size: 32, optimizer: {{lr: 3.0e-3}}}}
"""


def run(folder: Path, name: str, task: str, steps: int, more: str = "") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(name=name, task=task, steps=steps, more=more), encoding="utf-8")
    assert main(["run", str(path), "--out", str(folder), "--device", "cpu"]) == 0
    (made,) = (folder / name).iterdir()
    return made


def test_from_reconstruction_to_classification(tmp_path, capsys):
    before = run(tmp_path, "before", "reconstruction", 30)
    metrics = json.loads((before / "result.json").read_text())["metrics"]
    assert metrics["loss"] < metrics["baseline"]
    assert (before / "pictures" / "predictions.png").is_file()
    held = load_file(sorted(before.glob("checkpoints/step-*/tensors.safetensors"))[-1])
    assert held["learner/task.fill_CPP"].shape == (1, 2, 2)
    settings = MambaSettings(width=16, depth=2, state=4, weights=str(before))
    for name, value in MambaBackbone(settings, context(Grid(4, 4), patch=2, width=16)).state_dict().items():
        assert torch.equal(value, held[f"learner/model.backbone.{name}"])
    after = run(tmp_path, "after", "classification", 2, f", weights: {before}")
    assert "top1" in json.loads((after / "result.json").read_text())["metrics"]
    capsys.readouterr()
