"""`reorder sensitivity`: blind models do not react, causal ones forget, figures and pictures are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reorder_sensitivity.card import card
from reorder_sensitivity.forgetting import quarter_ratio, retention
from reorder_sensitivity.orders import named_orders, random_orders, swapped_orders
from reorder_sensitivity.reaction import reactions
from reorder_sensitivity.reading import read

from reorder_core import UsageError
from reorder_core.cli.main import main
from reorder_core.opened import open_recipe, open_run, open_target
from reorder_core.recipe import load_recipe

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
SMALL = ["policy=null", "controls=[]", "training.epochs=1", "training.steps_per_epoch=4"]
VIT = [*SMALL, "backbone={name: vit, width: 32, depth: 2, heads: 2}"]
FEW = ["--images", "16", "--random", "2", "--swaps", "2", "--slots", "3", "--orderings", "hilbert,spiral"]


def opened(*overrides):
    return open_recipe(load_recipe(SMOKE, overrides or SMALL), "cpu")


def batches_of(model, images=16):
    return list(model.batches(model.dataset.validation, images, 8))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    overrides = [part for each in SMALL for part in ("-o", each)]
    assert main(["run", str(SMOKE), "--out", str(out), "--device", "cpu", *overrides]) == 0
    (folder,) = (out / "smoke").iterdir()
    return folder


def test_a_blind_model_does_not_react():
    model = opened(*VIT)
    rng = np.random.default_rng(0)
    tried = named_orders(model, ["hilbert"])
    own, (found,) = reactions(model, batches_of(model), tried)
    assert found.output < 1e-5
    assert found.score == own
    assert found.change.mean == 0
    kept = retention(model, batches_of(model), random_orders(16, 6, rng), slots=8)
    assert 0.5 < kept.first_to_last < 2  # over random orders no slot is special


@pytest.mark.parametrize("beam", [1, 2])
def test_captions_are_read_several_times_and_said_only_for_their_score(beam):
    data = "{name: digit_scenes, target: captions, captions: 2, train: 32, validation: 4}"
    task = f"{{name: captioning, vocabulary: 60, max_words: 3, beam: {beam}}}"
    backbone = "{name: mamba, direction: causal, width: 16, depth: 1, state: 2}"
    given = [f"data={data}", "patch.size=16", f"backbone={backbone}", f"task={task}", "training.batch_size=4"]
    model = opened(*SMALL[:3], "training.steps_per_epoch=1", *given)
    batches = batches_of(model, 4)
    own, (found,) = reactions(model, batches, named_orders(model, ["hilbert"]))
    assert 0 <= own <= 1
    assert found.output > 0
    model.task.score_B = lambda *_: pytest.fail("nobody asks for the score here")
    kept = retention(model, batches, random_orders(16, 2, np.random.default_rng(0)), slots=2)
    assert kept.gradient_N.min() > 0


def test_a_causal_model_that_reads_its_last_token_leans_on_the_end():
    model = opened()
    kept = retention(model, batches_of(model), random_orders(16, 4, np.random.default_rng(0)), slots=16)
    assert kept.first_to_last < 1
    assert kept.gradient_N.argmax() == 15
    assert kept.occlusion_RS.mean(axis=0).argmax() == 15
    np.testing.assert_allclose(kept.gradient_RN.mean(axis=1), 1)
    np.testing.assert_allclose(kept.place_N.mean(), 1)


def test_gradient_influence_is_that_of_finite_differences():
    """The norm of the gradient at a slot bounds how fast the objective moves along it."""
    model = opened()
    (batch,) = model.batches(model.dataset.validation, 1, 1)
    order_N = model.order_N
    direction_D = torch.zeros(model.model.backbone.width)
    direction_D[3] = 1e-2
    kept = []

    def keep(tokens_BND):
        kept.append(tokens_BND.detach().requires_grad_())
        return kept[0]

    (gradient_BND,) = torch.autograd.grad(read(model, batch, order_N, keep).objective_B.sum(), kept)

    def moved(sign):
        def alter(tokens_BND):
            changed = tokens_BND.detach().clone()
            changed[:, 9] += sign * direction_D
            return changed

        with torch.no_grad():
            return float(read(model, batch, order_N, alter).objective_B)

    slope = (moved(1) - moved(-1)) / 2e-2
    assert slope == pytest.approx(float(gradient_BND[0, 9, 3]), abs=2e-3 + 0.02 * abs(slope))


def test_orders_that_are_tried():
    model = opened()
    named = named_orders(model, None)
    assert {"row_major", "hilbert", "spiral", "snake"} <= {kind.name for kind in named}
    assert not {"random", "file"} & {kind.name for kind in named}
    flat = [kind.orders_KN[0].tobytes() for kind in named]
    assert len({*flat}) == len(flat)
    rng = np.random.default_rng(1)
    swapped = swapped_orders(np.arange(16), 1, 5, rng)
    assert ((swapped != np.arange(16)).sum(axis=1) == 2).all()
    assert (np.sort(random_orders(16, 3, rng), axis=1) == np.arange(16)).all()
    with pytest.raises(UsageError, match="did you mean 'hilbert'"):
        named_orders(model, ["hilbrt"])


def test_quarters():
    assert quarter_ratio(np.array([1.0, 9, 9, 2.0])) == 0.5
    assert quarter_ratio(np.array([3.0])) == 1


def test_of_a_run_and_a_recipe_side_by_side(run_folder, tmp_path, capsys):
    out = tmp_path / "found"
    assert main(["sensitivity", str(run_folder), str(SMOKE), *FEW, "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "4 steps" in printed
    assert "fresh weights" in printed
    assert "hilbert" in printed
    found = json.loads((out / "sensitivity.json").read_text())
    assert [each["trained_steps"] for each in found] == [4, 0]
    assert [row["name"] for row in found[0]["reactions"]][:2] == ["hilbert", "spiral"]
    assert found[0]["card"]["parameters"] == found[1]["card"]["parameters"] > 10_000
    assert len(found[0]["retention"]["gradient"]) == 16
    for picture in ("orders.png", "retention.png"):
        assert (out / picture).read_bytes()[:4] == b"\x89PNG"


def test_json_is_all_that_stands_on_stdout(tmp_path, capsys):
    assert main(["sensitivity", str(SMOKE), *FEW, "--slots", "0", "--json", "--out", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["retention"]["occluded_slots"] == []


PIXELS = """
name: pixels
seed: 0
data: {name: digit_scenes, target: mask, train: 16, validation: 8, size: 32, digits: [1, 2], side: [12, 14]}
patch: {size: 8}
ordering: {name: row_major}
backbone: {name: mamba, width: 16, depth: 1, state: 4}
task: {name: segmentation}
training: {epochs: 1, batch_size: 16, optimizer: {lr: 3.0e-3}}
"""


def test_a_score_of_an_image_that_is_not_the_metric_goes_by_its_own_name(tmp_path, capsys):
    """The mean IoU of a split is no mean over images, and its name must not stand above one."""
    (tmp_path / "pixels.yaml").write_text(PIXELS)
    given = ["--images", "4", "--json", "--out", str(tmp_path / "out")]
    few = ["--orderings", "hilbert", "--random", "1", "--swaps", "1", "--slots", "0"]
    assert main(["sensitivity", str(tmp_path / "pixels.yaml"), *few, *given]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metric"] == "miou of an image"
    assert main(["run", str(tmp_path / "pixels.yaml"), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs" / "pixels").iterdir()
    capsys.readouterr()
    assert main(["saliency", str(folder), "--method", "gradient", *given]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == "miou of an image"


def test_the_same_seed_gives_the_same_figures(tmp_path):
    for name in ("a", "b"):
        assert main(["sensitivity", str(SMOKE), *FEW, "--out", str(tmp_path / name)]) == 0
    a, b = ((tmp_path / name / "sensitivity.json").read_text() for name in ("a", "b"))
    assert a == b


def test_a_run_is_opened_with_its_own_weights_and_order(run_folder):
    model = open_run(run_folder, "cpu")
    assert model.steps == 4
    assert model.order_name == "row_major"
    fresh = open_recipe(load_recipe(run_folder / "recipe.yaml"), "cpu")
    assert not torch.equal(model.task.head.weight, fresh.task.head.weight)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.yaml"], "nowhere.yaml: there is no such recipe or run"),
        (["{tmp}"], "is no folder of a run: give the folder that holds recipe.yaml"),
        (["{runs}"], "is no folder of a run: did you mean"),
        (["{run}", "-o", "seed=1"], "is a run, whose recipe stands"),
        ([str(SMOKE), "--orderings", "hilbrt"], "did you mean 'hilbert'"),
        ([str(SMOKE), "--random", "0"], "Invalid value for '--random'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, run_folder, tmp_path, capsys):
    places = {"tmp": str(tmp_path), "run": str(run_folder), "runs": str(run_folder.parent)}
    assert main(["sensitivity", *(argument.format(**places) for argument in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_says_so(run_folder, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "recipe.yaml").write_text((run_folder / "recipe.yaml").read_text())
    with pytest.raises(UsageError, match="holds no checkpoint of a run"):
        open_target(bare, (), "cpu")


def test_attention_is_counted():
    """Four times the patches are four times the linear layers, and sixteen times the attention."""
    flops = []
    for size in (16, 32):
        data = {"name": "cluttered_digits", "size": 32, "train": 256, "validation": 2}
        changes = {"data": data, "patch.size": 512 // size // 4, "backbone": {"name": "vit", "width": 24, "depth": 1}}
        flops.append(card(open_recipe(load_recipe(SMOKE, SMALL).with_overrides(changes), "cpu")).flops)
    assert flops[1] > 4 * flops[0]


@pytest.mark.parametrize(
    ("name", "setting", "more"),
    [("mamba", "state", {}), ("mamba2", "state", {"head_width": 8}), ("longformer", "window", {"heads": 2})],
)
def test_operators_of_rooms_are_counted(name, setting, more):
    """More states or a wider window, more operations: what torch's counter does not know is counted by the room."""
    flops = []
    for value in (4, 8):
        backbone = {"name": name, "width": 16, "depth": 1, setting: value, **more}
        flops.append(card(open_recipe(load_recipe(SMOKE, SMALL).with_overrides({"backbone": backbone}), "cpu")).flops)
    assert flops[1] > flops[0] > 0
