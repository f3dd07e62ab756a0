"""The task `arm_pretraining`: contract, targets in the given order, what a prediction sees, fine-tuning after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from reorder_arm.backbone import ArmBackbone
from reorder_arm.picture import in_place
from reorder_arm.settings import ArmPretrainingSettings, ArmSettings
from reorder_arm.task import ArmPretraining, Prediction, sees_NN
from safetensors.torch import load_file

from reorder_core import Batch, Draw, Features, Grid, Layout, Level, RunFacts, UsageError
from reorder_core.cli.main import main
from reorder_core.conformance import check_task, context
from reorder_core.model import Model, sincos2d
from reorder_core.patch_pixels import normalise_patches, patchify
from reorder_core.settings import DataFacts

GRID, PATCH = Grid(3, 4), 2
SMALL = {"cluster": 3, "width": 16, "depth": 2, "heads": 2}
FACTS = RunFacts(DataFacts(12, 16, 1), GRID, 4, 8, "learned")


def task_of(**settings):
    where = context(GRID, patch=PATCH, channels=2, width=16)
    return ArmPretraining(ArmPretrainingSettings(**(SMALL | settings)), where).eval()


def model_of(**settings):
    chosen = ArmSettings(**({"width": 16, "depth": 4, "state": 4, "direction": "causal"} | settings))
    return Model(ArmBackbone(chosen, context(GRID, width=16)), GRID, PATCH, 2).eval()


def batch_of(count=3, seed=0):
    images = torch.randn(count, 2, 6, 8, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def order_of(seed=1):
    return Layout.fixed(GRID, torch.randperm(12, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("cluster", [1, 2, 3])
def test_holds_the_contract_of_tasks(cluster):
    check_task("arm_pretraining", ArmPretrainingSettings(**(SMALL | {"cluster": cluster})))


@pytest.mark.parametrize(("cluster", "read", "predicted"), [(3, 9, 9), (4, 8, 8), (5, 10, 7), (6, 6, 6)])
def test_a_slot_is_predicted_from_all_clusters_before_its_own(cluster, read, predicted):
    """With 12 patches and clusters of 5 the last has two patches: it is predicted, and nothing reads it."""
    task = task_of(cluster=cluster)
    assert task.read == read
    assert task.hidden_MS.shape == (predicted, read)
    for slot in range(12):
        seen = {other for other in range(12) if sees_NN(12, cluster)[slot, other]}
        assert seen == set(range(cluster * (slot // cluster)))


@torch.no_grad()
def test_a_prediction_does_not_see_what_it_predicts_or_what_follows():
    task, model, layout, batch = task_of(), model_of(), order_of(), batch_of()
    before = task.step(model, batch, layout).prediction.pixels_BMP
    for slot in range(12):
        images = batch.images_BCHW.clone()
        patch = int(layout.perm_GN[0, slot])
        y, x = 2 * (patch // 4), 2 * (patch % 4)
        images[:, :, y : y + 2, x : x + 2] += torch.randn(3, 2, 2, 2)
        after = task.step(model, Batch(images, batch.target, batch.index_B), layout).prediction.pixels_BMP
        changed = [not torch.equal(after[:, row], before[:, row]) for row in range(9)]
        assert changed == [(row + 3) // 3 > slot // 3 for row in range(9)]


@torch.no_grad()
def test_loss_is_the_mean_squared_error_of_normalised_pixels_in_the_order():
    task, model, layout, batch = task_of(), model_of(), order_of(), batch_of()
    result = task.step(model, batch, layout)
    wanted = []
    for b in range(3):
        errors = []
        for row, patch in enumerate(layout.perm_GN[0, 3:].tolist()):
            pixels = patchify(batch.images_BCHW, GRID, PATCH)[b, patch]
            target = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            errors.append((result.prediction.pixels_BMP[b, row] - target).square().mean())
        wanted.append(torch.stack(errors).mean())
    torch.testing.assert_close(result.loss_B, torch.stack(wanted))


@torch.no_grad()
def test_an_order_for_each_image_is_each_order_alone():
    task, model, batch = task_of(), model_of(), batch_of()
    perm_GN = torch.stack([order_of(seed).perm_GN[0] for seed in range(2)])
    group_B = torch.tensor([1, 0, 1])
    together = task.step(model, batch, Draw(perm_GN, group_B)).loss_B
    for b in range(3):
        one = Batch(batch.images_BCHW[b : b + 1], batch.target[:1], batch.index_B[:1])
        alone = task.step(model, one, Layout.fixed(GRID, perm_GN[group_B[b]])).loss_B
        torch.testing.assert_close(together[b : b + 1], alone)


@torch.no_grad()
def test_the_decoder_is_a_stack_of_cross_attention():
    """The same predictions from an explicit softmax over the tokens that a slot may see."""
    task, layout = task_of(), order_of()
    tokens_BND = torch.randn(2, 12, 16)
    found = task.predict_pixels(Features((Level(tokens_BND, layout),), tokens_BND.mean(1)), layout)
    latent = task.to_decoder(task.norms[0](tokens_BND))
    place = sincos2d(GRID, 16)[layout.perm_GN[0]]
    for b in range(2):
        for slot in range(3, 12):
            query = task.query[0, 0] + place[slot]
            for number, block in enumerate(task.blocks):
                seen = block.norm_token(latent[b, : 3 * (slot // 3), 16 * number : 16 * (number + 1)])
                weight, bias = block.attention.in_proj_weight, block.attention.in_proj_bias
                q = (weight[:16] @ block.norm_query(query) + bias[:16]).view(2, 8)
                k, v = ((seen @ weight[at : at + 16].T + bias[at : at + 16]).view(-1, 2, 8) for at in (16, 32))
                share = torch.einsum("hd,shd->hs", q, k).div(8**0.5).softmax(-1)
                query = query + block.attention.out_proj(torch.einsum("hs,shd->hd", share, v).reshape(16))
                query = query + block.mlp(block.norm_mlp(query))
            torch.testing.assert_close(found[b, slot - 3], task.to_pixels(task.norm(query)), rtol=1e-4, atol=1e-5)


def test_levels_of_several_depths_are_read():
    task, model = task_of(levels=4), model_of(levels=4)
    task.step(model, batch_of(), order_of()).loss_B.mean().backward()
    assert all(norm.weight.grad.abs().sum() > 0 for norm in task.norms)
    with pytest.raises(UsageError, match=r"task.levels is 4, and the backbone gives 1 with \[12\] tokens"):
        task.step(model_of(), batch_of(), order_of())


def test_a_backbone_that_has_seen_everything_is_refused():
    with pytest.raises(UsageError, match="needs a causal backbone, as one with full attention has seen the patches"):
        task_of().refuse_model(model_of(direction="four"))


def test_the_picture_puts_a_right_prediction_in_its_place(tmp_path):
    task, layout, batch = task_of(), order_of(), batch_of()
    pixels_BNP = patchify(batch.images_BCHW, GRID, PATCH)
    prediction = Prediction(layout.order(normalise_patches(pixels_BNP))[:, 3:], layout)
    torch.testing.assert_close(in_place(pixels_BNP, prediction, 3, PATCH), batch.images_BCHW, rtol=0, atol=1e-4)
    grey = Batch(batch.images_BCHW[:, :1], batch.target, batch.index_B)
    one = ArmPretraining(ArmPretrainingSettings(**SMALL), context(GRID, patch=PATCH, channels=1, width=16))
    model = Model(model_of().backbone, GRID, PATCH, 1)
    one.draw_prediction(grey, one.step(model, grey, layout), layout, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert task.higher_is_better is False


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cluster": 12}, "cluster: 12 patches are no two clusters of 12"),
        ({"cluster": 2, "heads": 3}, "heads: a width of 512 is not divisible by 3 heads"),
        ({"cluster": 2, "width": 6, "heads": 1}, "width: positions of the decoder need a width divisible by 4"),
    ],
)
def test_settings_that_contradict_each_other_are_a_problem(settings, says):
    (problem,) = ArmPretrainingSettings(**settings).problems(FACTS)
    assert f"{problem.key}: {problem.message}".startswith(says)
    with pytest.raises(UsageError):
        ArmPretraining(ArmPretrainingSettings(**settings), context(GRID, width=16))


RECIPE = """
name: {name}
seed: 0
data: {{name: digits}}
patch: {{size: 2}}
positions: {{kind: {positions}}}
ordering: {{name: snake}}
backbone: {backbone}
task: {task}
training: {{epochs: 1, steps_per_epoch: {steps}, batch_size: 16, optimizer: {{lr: 3.0e-3}}}}
"""


def run(folder: Path, name: str, steps: int, positions: str, backbone: str, task: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(
        RECIPE.format(name=name, steps=steps, positions=positions, backbone=backbone, task=task), encoding="utf-8"
    )
    assert main(["run", str(path), "--out", str(folder), "--device", "cpu"]) == 0
    (made,) = (folder / name).iterdir()
    return made


def test_from_pretraining_to_fine_tuning(tmp_path, capsys):
    small = "name: arm, width: 16, depth: 4, state: 4"
    task = "{name: arm_pretraining, cluster: 4, levels: 4, width: 16, depth: 2, heads: 2}"
    before = run(tmp_path, "before", 12, "learned", f"{{{small}, direction: causal, levels: 4}}", task)
    assert json.loads((before / "result.json").read_text())["metrics"]["loss"] < 1
    file = sorted(before.glob("checkpoints/step-*/tensors.safetensors"))[-1]
    after = run(tmp_path, "after", 2, "none", f"{{{small}, weights: {before}}}", "{name: classification}")
    assert json.loads((after / "result.json").read_text())

    held = load_file(file)
    backbone = ArmBackbone(
        ArmSettings(width=16, depth=4, state=4, weights=str(file)), context(Grid(4, 4), patch=2, width=16)
    )
    own = backbone.state_dict()
    for suffix in ("", "_b", "_c", "_c_b"):
        taken = own[f"layers.3.mixer.x_proj{suffix}.weight"]
        assert torch.equal(taken, held["learner/model.backbone.layers.3.mixer.x_proj.weight"])
    assert torch.equal(own["norm_f.weight"], held["learner/model.backbone.norm_f.weight"])
    embedding = backbone.embedding(Grid(4, 4), 2, 1)
    assert torch.equal(embedding.project.weight, held["learner/model.embedding.project.weight"])
    assert torch.equal(embedding.position_ND, held["learner/model.position_ND"])

    again = run(tmp_path, "again", 1, "none", f"{{{small}, weights: {after}}}", "{name: classification}")
    assert (again / "result.json").exists()
    capsys.readouterr()
