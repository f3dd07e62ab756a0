"""Every backbone is exported with its order baked in, and answers as before; ONNX for ViT and Longformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.errors import RunError
from reorder_core.export import export
from reorder_core.opened import open_recipe
from reorder_core.recipe import load_recipe

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
# What a backbone needs to be small; unknown keys are left out, so that one list serves them all.
SMALL = {"width": 24, "depth": 2, "heads": 2, "state": 4, "window": 4, "segment": 6, "memory": 6}
OWN = {
    "hierarchical": {"widths": [16, 32], "depths": [1, 1], "mixer": {"name": "vit", "heads": 2}},
    "mamba2": {"head_width": 8},
    "timm_vit": {"model": "vit_tiny_patch16_224"},
    "image_transformer": {"query": 4, "memory": 2},
}
BACKBONES = sorted(
    entry.component.name for entry in Catalogue.load().entries("backbone") if entry.distribution == "reorder"
)


def recipe_of(name, **more):
    catalogue = Catalogue.load()
    model = catalogue.settings_class(catalogue.find("backbone", name))
    settings = {key: value for key, value in {**SMALL, **OWN.get(name, {})}.items() if key in model.model_fields}
    changes = {"backbone": {"name": name, **settings, **more}}
    if name == "timm_vit":  # it brings its own positions
        changes["positions"] = {"kind": "none"}
    return load_recipe(SMOKE, ["policy=null", "controls=[]", "ordering=hilbert"]).with_overrides(changes)


@pytest.mark.parametrize("name", BACKBONES)
def test_torch_export(name, tmp_path):
    found = export(open_recipe(recipe_of(name), "cpu"), tmp_path / "model.pt2", "torch")
    assert found.difference < 1e-5
    assert found.outputs == (10,)


@pytest.mark.parametrize("name", ["vit", "longformer"])
def test_onnx_export(name, tmp_path):
    opened = open_recipe(recipe_of(name), "cpu")
    path = tmp_path / "model.onnx"
    assert export(opened, path, "onnx").difference < 1e-4
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (batch,) = opened.batches(opened.dataset.validation, 5)
    (logits,) = session.run(None, {"images": batch.images_BCHW.numpy()})
    assert logits.shape == (5, 10)


def test_the_order_is_a_constant_of_the_file(tmp_path):
    """The file answers in the order it was written in: another order, another answer."""
    one, two = tmp_path / "one.pt2", tmp_path / "two.pt2"
    recipe = recipe_of("mamba")
    export(open_recipe(recipe, "cpu"), one, "torch")
    export(open_recipe(recipe.with_overrides(["ordering=spiral"]), "cpu"), two, "torch")
    images_BCHW = torch.randn(3, 1, 8, 8)
    answers = [torch.export.load(str(path)).module()(images_BCHW).detach().numpy() for path in (one, two)]
    assert np.abs(answers[0] - answers[1]).max() > 1e-4


def test_nothing_is_kept_of_an_export_that_answers_differently(tmp_path, monkeypatch):
    from reorder_core import export as module

    monkeypatch.setattr(module, "_write_torch", lambda *_: path.write_text("x") and (lambda images: images.sum((2, 3))))
    path = tmp_path / "part-model.pt2"
    with pytest.raises(RunError, match="answers differently"):
        export(open_recipe(recipe_of("vit"), "cpu"), tmp_path / "model.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    path = tmp_path / "smoke.pt2"
    assert main(["export", str(SMOKE), "--out", str(path), "--batch", "4"]) == 0
    assert f"{path}: 4 images to [10], in the order row_major" in capsys.readouterr().out
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.yaml"], "nowhere.yaml: there is no such recipe or run"),
        ([str(SMOKE), "--out", "x.txt"], "--out x.txt: a file of this format ends in .pt2"),
        ([str(SMOKE), "--to", "onnx", "--out", "x.pt2"], "ends in .onnx"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, capsys):
    assert main(["export", *arguments]) == 2
    assert said in capsys.readouterr().err
