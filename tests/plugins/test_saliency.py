"""Saliency: closed forms, the planted truth, correlations, what the command writes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reorder_planted.composition import carriers
from reorder_saliency.correlation import chance, placed, rank_correlations
from reorder_saliency.measures import by_gradient, by_occlusion, maps, variance_N
from reorder_saliency.objective import Objective
from reorder_saliency.ordering import by_salience
from reorder_saliency.rollout import AttentionWeights, _weights, rollout
from scipy.stats import spearmanr
from torch.nn import functional

from reorder_core import Batch, ComponentRef, Grid, Layout, UnsupportedGrid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.conformance import check_ordering, context
from reorder_core.opened import open_recipe, open_run
from reorder_core.permutation import invert
from reorder_core.recipe import load_recipe

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
PLANTED = [
    "name=planted",
    "data={name: planted, train: 512, validation: 96, size: 12, classes: 3, carriers: 2, place: scattered, noise: 0.3}",
    "patch.size=4",
    "backbone={name: vit, width: 16, depth: 2, heads: 2, readout: class}",
    "policy=null",
    "controls=[]",
    "training.epochs=12",
    "training.optimizer.lr=0.01",
]
CARRIERS = {4, 8}  # as the test below has it from the data set
SHORT = ["controls=[]", "training.epochs=3", "training.steps_per_epoch=2"]


def trained(out, overrides):
    parts = [part for each in overrides for part in ("-o", each)]
    assert main(["run", str(SMOKE), "--out", str(out), "--device", "cpu", *parts]) == 0
    (folder,) = [place for name in out.iterdir() for place in name.iterdir()]
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("planted"), PLANTED)


@pytest.fixture(scope="module")
def mamba(tmp_path_factory):
    """A causal model with a policy that starts from Hilbert's curve."""
    return trained(tmp_path_factory.mktemp("mamba"), [*SHORT, "policy.prior=hilbert"])


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory):
    out = tmp_path_factory.mktemp("found")
    assert main(["saliency", str(planted), "--per-class", "--out", str(out), "--device", "cpu"]) == 0
    return out


def fresh(*overrides):
    return open_recipe(load_recipe(SMOKE, ["policy=null", "controls=[]", *overrides]), "cpu")


def built(grid, **written):
    return Catalogue.load().build(ComponentRef("ordering", "saliency", written), context(grid))


def linear(weight_KCHW, grid):
    """A model whose logits are linear in the pixels, as `Objective` sees one."""
    task = SimpleNamespace(predict=lambda features: features)
    model = lambda images_BCHW, layout: torch.einsum("bchw,kchw->bk", images_BCHW, weight_KCHW)  # noqa: E731
    opened = SimpleNamespace(task=task, model=model, grid=grid, device=torch.device("cpu"))
    return Objective(opened, np.arange(grid.size))


def test_carriers_are_the_most_salient_by_every_method(found):
    given = open_recipe(load_recipe(SMOKE, PLANTED), "cpu").recipe.data.settings
    assert set(carriers(given).tolist()) == CARRIERS
    report = json.loads((found / "saliency.json").read_text())
    assert [each["method"] for each in report["methods"]] == ["rollout", "gradient", "occlusion"]
    assert report["left_out"] == {}
    for each in report["methods"]:
        assert each["score"] > 0.95
        best = np.argsort(each["saliency"])[::-1]
        assert set(best[:2]) == CARRIERS, each["method"]
        assert each["saliency"][best[1]] > 1.3 * each["saliency"][best[2]], each["method"]
        assert np.mean(each["saliency"]) == pytest.approx(1)
        for group in each["classes"]:
            assert set(np.argsort(group["saliency"])[::-1][:2]) == CARRIERS, (each["method"], group["name"])


def test_the_command_writes_figures_and_pictures(found, planted):
    report = json.loads((found / "saliency.json").read_text())
    first = report["methods"][0]
    assert sum(group["images"] for group in first["classes"]) == report["images"] == 96
    assert [group["name"] for group in first["classes"]] == ["pattern 0", "pattern 1", "pattern 2"]
    own, backwards, rows = first["orders"]
    assert [each["order"] for each in first["orders"]] == ["own", "own reversed", "row_major"]
    assert own["correlation"] == pytest.approx(-backwards["correlation"])
    assert own["correlation"] == rows["correlation"], "the run reads row by row"
    assert own["interval"][0] <= own["correlation"] <= own["interval"][1]
    names = {"saliency.png", "classes-rollout.png", "classes-gradient.png", "classes-occlusion.png"}
    for name in names:
        assert (found / name).read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in found.iterdir()} == names | {"saliency.json"}


def test_without_out_it_writes_into_the_run(planted, capsys):
    assert main(["saliency", str(planted), "--method", "gradient", "--json", "--images", "32"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["methods"][0]["classes"]) == (32, [])
    assert {path.name for path in (planted / "saliency").iterdir()} == {"saliency.json", "saliency.png"}


@pytest.mark.parametrize("source", ["rollout", "gradient", "occlusion"])
def test_an_order_by_the_saliency_of_a_run_correlates_fully_with_it(planted, source):
    opened = open_run(planted, "cpu")
    batches = list(opened.batches(opened.dataset.validation, 64, 32))
    map_BN = maps(source, Objective(opened, opened.order_N), batches)
    images = torch.cat([batch.images_BCHW for batch in batches]).numpy()
    orders = {}
    for direction in ("ascending", "descending"):
        ordering = built(opened.grid, source=source, run=str(planted), direction=direction, images=64)
        state = torch.get_rng_state()
        ordering.fit(images, opened.grid, None)
        assert torch.equal(state, torch.get_rng_state()), "the run that is being built goes on drawing as before"
        orders[direction] = ordering.permutation(opened.grid)
    rising, falling = placed(map_BN, orders, resamples=200)
    assert rising.correlation == pytest.approx(1)
    assert falling.correlation == pytest.approx(-1)
    assert rising.high == pytest.approx(-falling.low)


def test_rollout_left_out_or_refused_where_there_is_no_full_attention(mamba, tmp_path, capsys):
    assert main(["saliency", str(mamba), "--images", "16", "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert (
        "rollout left out: the backbone 'mamba' (attention: causal) does not look at all tokens in every block"
        in printed
    )
    report = json.loads((tmp_path / "a" / "saliency.json").read_text())
    assert [each["method"] for each in report["methods"]] == ["gradient", "occlusion"]
    assert list(report["orders"]) == ["own", "own reversed", "row_major", "start (hilbert)"]
    assert report["orders"]["own"] == open_run(mamba, "cpu").order_N.tolist()
    assert main(["saliency", str(mamba), "--method", "rollout", "--out", str(tmp_path / "b")]) == 2
    assert "there is no attention rollout of it: use gradient or occlusion" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("backbone", "allowed"),
    [
        ("{name: vit, width: 16, depth: 2, heads: 2, readout: class}", True),
        ("{name: vit, width: 16, depth: 2, heads: 2, readout: mean}", True),
        ("{name: vit, width: 16, depth: 2, heads: 2, readout: last}", True),
        ("{name: longformer, width: 16, depth: 2, heads: 2, window: 4}", False),
        ("{name: transformer_xl, width: 16, depth: 2, heads: 2}", False),
        ("{name: mamba, width: 16, depth: 2, direction: bidirectional}", False),
        ("{name: hierarchical, mixer: {name: vit, heads: 2}, widths: [16, 32], depths: [1, 1]}", False),
        ("{name: vit, width: 16, depth: 2, heads: 2, between: layer_shuffle}", False),
    ],
)
def test_rollout_of_every_kind_of_backbone(backbone, allowed):
    opened = fresh(f"backbone={backbone}")
    (batch,) = opened.batches(opened.dataset.validation, 3, 3)
    if not allowed:
        with pytest.raises(UsageError, match="no attention rollout of it"):
            rollout(opened, batch.images_BCHW, Objective(opened, opened.order_N).layout)
        return
    found_BN = rollout(opened, batch.images_BCHW, Objective(opened, opened.order_N).layout)
    torch.testing.assert_close(found_BN.sum(dim=1), torch.ones(3))
    readout = opened.recipe.backbone.settings.readout
    if readout != "last":  # blind to the order, so that the map is the same in any
        other_N = np.random.default_rng(0).permutation(16)
        torch.testing.assert_close(rollout(opened, batch.images_BCHW, Objective(opened, other_N).layout), found_BN)
    torch.testing.assert_close(found_BN, by_hand(opened, batch, readout))


@torch.no_grad()
def by_hand(opened, batch, readout):
    """Equation 1 with whole matrices, the attention from the weights of the blocks."""
    backbone = opened.model.backbone
    layout = Layout.fixed(opened.grid, torch.arange(16))
    tokens_BLD, _ = opened.model.ordered(batch.images_BCHW, layout)
    if readout == "class":
        tokens_BLD = torch.cat([backbone.cls_token.expand(3, -1, -1), tokens_BLD], dim=1)
    product = torch.eye(tokens_BLD.shape[1])
    for block in backbone.blocks:
        q, k, _ = block.attn.qkv(block.norm1(tokens_BLD)).chunk(3, dim=-1)
        q, k = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q, k))
        weight_BLL = (q @ k.transpose(-1, -2) / 8**0.5).softmax(dim=-1).mean(dim=1)
        product = (weight_BLL + torch.eye(weight_BLL.shape[-1])) / 2 @ product
        tokens_BLD = block(tokens_BLD, backbone.plan(layout))
    row_BN = {"class": product[:, 0], "mean": product.mean(dim=1), "last": product[:, -1]}[readout]
    row_BN = row_BN[:, -16:]
    return row_BN / row_BN.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.tensor([[True, False, True, True, True]])},
        {"attn_mask": torch.linspace(-2, 2, 25).reshape(5, 5)},
    ],
)
def test_weights_are_those_that_torch_mixes_by(options):
    query, key, value = (torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    mixed = functional.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(_weights(query, key, value, **options) @ value, mixed)
    with AttentionWeights() as weights:
        functional.scaled_dot_product_attention(query, key, value, **options)
        (query @ key.transpose(-1, -2)).softmax(dim=-1)
        functional.softmax(query, dim=-1)
    assert [tuple(each.shape) for each in weights.seen] == [(2, 5, 5)] * 2


def test_gradient_and_occlusion_of_a_linear_model_in_closed_form():
    rng, grid = np.random.default_rng(0), Grid(2, 3)
    weight_KCHW = torch.from_numpy(rng.normal(size=(4, 2, 4, 9))).float()
    images_BCHW = torch.from_numpy(rng.normal(size=(5, 2, 4, 9))).float()
    batches = [Batch(part, None, torch.arange(len(part))) for part in images_BCHW.split(3)]
    objective = linear(weight_KCHW, grid)
    class_B = torch.einsum("bchw,kchw->bk", images_BCHW, weight_KCHW).argmax(dim=1)
    above_BCHW = (weight_KCHW - weight_KCHW.mean(dim=0))[class_B]

    def summed(values_BCHW):
        rows = [
            values_BCHW[:, :, row * 2 : row * 2 + 2, column * 3 : column * 3 + 3]
            for row in (0, 1)
            for column in range(3)
        ]
        return torch.stack([part.sum(dim=(1, 2, 3)) for part in rows], dim=1).abs()

    gradient = torch.cat([by_gradient(objective, batch) for batch in batches])
    torch.testing.assert_close(gradient, summed(above_BCHW * images_BCHW), atol=1e-4, rtol=1e-4)
    ticks = []
    occlusion = by_occlusion(objective, batches, lambda: ticks.append(1))
    torch.testing.assert_close(
        occlusion, summed(above_BCHW * (images_BCHW.mean(0) - images_BCHW)), atol=1e-4, rtol=1e-4
    )
    assert len(ticks) == 12
    scaled_BN = maps("gradient", objective, batches)
    np.testing.assert_allclose(scaled_BN.mean(axis=1), 1)
    assert (maps("gradient", linear(torch.zeros(4, 2, 4, 9), grid), batches) == 0).all()


def test_variance_in_closed_form():
    images = np.random.default_rng(0).normal(size=(30, 2, 4, 6)).astype(np.float32)
    images[:, :, 2:, :3] *= 5
    found_N = variance_N(images, Grid(2, 2))
    assert found_N[2] == pytest.approx(images[:, :, 2:, :3].var(axis=0).mean(), rel=1e-5)
    assert built("2x2", source="variance", direction="descending").settings.direction == "descending"
    ordering = built("2x2", source="variance")
    ordering.fit(images, Grid(2, 2), None)
    assert ordering.permutation(Grid(2, 2))[-1] == 2
    assert ordering.permutation(Grid(2, 2)).tolist() == np.argsort(found_N).tolist()


def test_the_contract_of_an_ordering():
    check_ordering("saliency", {"source": "variance"}, max_side=6)
    check_ordering("reverse", {"of": {"name": "saliency", "source": "variance"}}, max_side=4)


def test_equal_patches_stand_by_their_number_in_both_directions():
    salience_N = np.array([1.0, 3.0, 1.0, 2.0])
    assert by_salience(salience_N, "ascending").tolist() == [0, 2, 3, 1]
    assert by_salience(salience_N, "descending").tolist() == [1, 3, 0, 2]


def test_correlations_are_scipy_s():
    rng = np.random.default_rng(0)
    map_BN = rng.integers(0, 4, size=(40, 12)).astype(float) + np.linspace(0, 1, 12)
    orders = {f"{seed}": np.random.default_rng(seed).permutation(12) for seed in range(3)} | {"rows": np.arange(12)}
    found = placed(map_BN, orders)
    for each in found:
        wanted = spearmanr(invert(orders[each.order]), map_BN.mean(axis=0)).statistic
        assert each.correlation == pytest.approx(wanted)
        assert each.low <= each.high
    assert found[-1].low > 0
    tied = np.array([[1.0, 1, 2, 3, 3, 3]])
    assert rank_correlations(tied, np.arange(6)[None])[0, 0] == pytest.approx(spearmanr(tied[0], range(6)).statistic)
    assert rank_correlations(np.ones((1, 5)), np.arange(5)[None])[0, 0] == 0
    assert found == placed(map_BN, orders), "the same seed gives the same interval"


def test_chance_is_what_random_orders_do():
    rng = np.random.default_rng(0)
    slot_ON = np.stack([rng.permutation(64) for _ in range(4000)])
    found_O = rank_correlations(rng.random((1, 64)), slot_ON)[0]
    assert np.mean(np.abs(found_O) > chance(64)) == pytest.approx(0.05, abs=0.015)
    assert chance(1) == 1


def test_a_clear_picture_has_a_narrow_interval_and_a_noisy_one_a_wide_one():
    rng, clear_N = np.random.default_rng(0), np.linspace(0, 1, 20)
    widths = []
    for noise in (0.1, 3):
        (at,) = placed(clear_N + rng.normal(0, noise, (100, 20)), {"rows": np.arange(20)})
        widths.append(at.high - at.low)
    assert widths[0] < 0.1 < widths[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: there is no such folder of a run"),
        (["{tmp}"], "is no folder of a run"),
        (["{run}", "--method", "guess"], "Invalid value for '--method'"),
        (["{run}", "--images", "1"], "Invalid value for '--images'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, planted, tmp_path, capsys):
    assert main(["saliency", *(each.format(tmp=tmp_path, run=planted) for each in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ordering", "said"),
    [
        ("{{name: saliency, source: variance, run: {run}}}", "the source 'variance' looks at no model"),
        ("{{name: saliency, source: gradient}}", "the source 'gradient' needs the folder of a finished run"),
        ("{{name: saliency, source: rollout, run: nowhere}}", "nowhere is no folder of a run"),
        ("{{name: saliency, source: rollout, run: {run}}}", "has a grid of 3x3, and this one has 4x4"),
    ],
)
def test_check_finds_a_run_that_does_not_fit(ordering, said, planted, capsys):
    assert main(["check", str(SMOKE), "-o", f"ordering={ordering.format(run=planted)}"]) == 2
    assert said in capsys.readouterr().err


def test_an_ordering_says_what_it_cannot_do(planted):
    ordering = built("3x3", source="gradient", run=str(planted))
    with pytest.raises(UsageError, match="show it some with fit"):
        ordering.permutation(Grid(3, 3))
    with pytest.raises(UsageError, match="has a grid of 3x3, and this one has 2x3"):
        ordering.fit(np.zeros((4, 1, 8, 12)), Grid(2, 3), None)
    with pytest.raises(UsageError, match=r"reads images of 12x12x1 .* and these are 12x12x3"):
        ordering.fit(np.zeros((4, 3, 12, 12)), Grid(3, 3), None)
    with pytest.raises(UnsupportedGrid, match="not of 2 frames"):
        ordering.permutation(Grid(3, 3, 2))
    with pytest.raises(UsageError, match="cannot be cut into 3x3 patches"):
        built("3x3", source="variance").fit(np.zeros((4, 1, 8, 9)), Grid(3, 3), None)
    with pytest.raises(UsageError, match=r"must be \[n, C, H, W\]"):
        built("3x3", source="variance").fit(np.zeros((0, 1, 9, 9)), Grid(3, 3), None)


def test_a_task_without_classes_is_followed_by_its_loss_where_there_are_targets():
    opened = fresh("backbone={name: vit, width: 16, depth: 1, heads: 2}")
    (batch,) = opened.batches(opened.dataset.validation, 4, 4)
    task = SimpleNamespace(step=opened.task.step)
    plain = SimpleNamespace(model=opened.model, task=task, grid=opened.grid, device=opened.device, recipe=opened.recipe)
    objective = Objective(plain, opened.order_N)
    with torch.no_grad():
        said_B, class_B = objective(batch, batch.images_BCHW)
        wanted_B = -opened.task.step(opened.model, batch, objective.layout).loss_B
    torch.testing.assert_close(said_B, wanted_B)
    assert class_B is None
    with pytest.raises(UsageError, match="use source: variance"):
        objective(Batch(batch.images_BCHW, None, batch.index_B), batch.images_BCHW)


@pytest.fixture(scope="module")
def orphan(planted, tmp_path_factory):
    """A run with a policy that starts from the saliency of another, with a control of a saved order; both are gone."""
    root = tmp_path_factory.mktemp("orphan")
    source, saved = root / "source", root / "saved.json"
    shutil.copytree(planted, source)
    shutil.copy(planted / "order.json", saved)
    ordering = f"ordering={{name: saliency, source: occlusion, run: {source}, images: 32}}"
    changes = [*PLANTED[:-4], *SHORT[1:], f"controls=[{{name: file, path: {saved}}}]", "policy=reinforce", ordering]
    folder = trained(root / "runs", changes)
    shutil.rmtree(source)
    saved.unlink()
    return folder


def test_a_run_can_read_by_the_saliency_of_another(orphan):
    orders = [json.loads(row) for row in (orphan / "metrics.jsonl").read_text().splitlines()]
    first = next(row["permutation"] for row in orders if row["event"] == "order")
    assert set(first[-2:]) == CARRIERS
    assert json.loads((orphan / "order.json").read_text())["provenance"]["initial_order"] == "saliency"


def test_a_finished_run_is_opened_without_what_its_orders_were_made_of(orphan, tmp_path, capsys):
    assert main(["check", str(orphan / "recipe.yaml")]) == 2, "as a recipe, it has lost what it names"
    assert "is no folder of a run" in capsys.readouterr().err
    control = orphan / "controls" / "file"
    for folder in (orphan, control):
        opened = open_run(folder, "cpu")
        saved = json.loads((folder / "order.json").read_text())
        assert (opened.order_N.tolist(), opened.order_name) == (saved["permutation"], saved["name"])
    assert open_run(control, "cpu").start() is None
    started = open_run(orphan, "cpu").start()
    assert (set(started[0][-2:].tolist()), started[1]) == (CARRIERS, "saliency")
    few = ["--images", "16", "--device", "cpu"]
    assert main(["saliency", str(orphan), "--method", "gradient", *few, "--out", str(tmp_path / "a")]) == 0
    assert "start (saliency)" in json.loads((tmp_path / "a" / "saliency.json").read_text())["orders"]
    short = ["--orderings", "spiral", "--random", "1", "--swaps", "1", "--slots", "1"]
    assert main(["sensitivity", str(orphan), *few, *short, "--out", str(tmp_path / "b")]) == 0
    assert main(["export", str(orphan), "--out", str(tmp_path / "model.pt2"), "--batch", "1"]) == 0
    assert main(["show", "ordering", "file", "--grid", "3x3", "-o", f"path={orphan / 'order.json'}"]) == 0


def test_predict_reads_the_images_of_runs_whose_orders_are_made_of_nothing_that_is_left(orphan, tmp_path, capsys):
    """Three orders of one model, as a correlation needs: the run, its control, and the control again in another."""
    other = orphan / "controls" / "other"
    shutil.copytree(orphan / "controls" / "file", other)
    saved = json.loads((other / "order.json").read_text())
    (other / "order.json").write_text(json.dumps({**saved, "permutation": saved["permutation"][::-1], "name": "back"}))
    result = json.loads((other / "result.json").read_text())
    result["metrics"]["top1"] += 0.1
    (other / "result.json").write_text(json.dumps(result))
    assert main(["predict", str(orphan), "--json", "--resamples", "100", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["table"]) == 3
    assert found["within_images"]
    shutil.rmtree(other)


def test_no_ordering_is_fitted_to_open_a_finished_run(orphan, monkeypatch):
    monkeypatch.setattr("reorder_core.training.build.fitted", lambda *given: pytest.fail("an ordering was built"))
    assert open_run(orphan, "cpu").steps > 0


@pytest.mark.parametrize(
    ("gone", "said"),
    [("result.json", "is not finished: continue it with"), ("checkpoints", "holds no checkpoint, and so no weights")],
)
def test_check_finds_a_source_that_is_not_finished_or_has_no_weights(planted, gone, said, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(planted, run, ignore=shutil.ignore_patterns(gone))
    ordering = f"ordering={{name: saliency, source: gradient, run: {run}}}"
    assert main(["check", str(SMOKE), *(part for each in [*PLANTED, ordering] for part in ("-o", each))]) == 2
    assert said in capsys.readouterr().err


def test_rollout_of_a_source_without_attention_ends_a_run_before_its_first_step(mamba, tmp_path, capsys):
    """Whether a backbone has attention over all shows when it is built, so that `check` cannot say it."""
    changes = [*SHORT, "policy=null", f"ordering={{name: saliency, source: rollout, run: {mamba}}}"]
    overrides = [part for each in changes for part in ("-o", each)]
    assert main(["run", str(SMOKE), "--out", str(tmp_path), "--device", "cpu", *overrides]) == 2
    said = capsys.readouterr().err
    assert f"the ordering 'saliency' cannot ask the run {mamba}: the backbone 'mamba' (attention: causal)" in said
    assert "use gradient or occlusion" in said
    assert [*tmp_path.glob("*/*")] == []
