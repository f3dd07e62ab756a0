"""Recipes run from code: what a room's command rests on; and what a task may say before and after a run."""

from __future__ import annotations

import json

import pytest
import torch
from reorder_classification.task import Classification

from reorder_core import RunError, UsageError
from reorder_core.cli.main import main
from reorder_core.recipe import recipe_from_mapping
from reorder_core.running import run_recipe

RECIPE = {
    "name": "tiny",
    "data": {"name": "digits"},
    "patch": {"size": 4},
    "ordering": {"name": "row_major"},
    "backbone": {"name": "vit", "width": 16, "depth": 1, "heads": 2},
    "task": {"name": "classification"},
    "training": {"epochs": 1, "steps_per_epoch": 4, "batch_size": 32, "optimizer": {"lr": 1.0e-3}},
}


def run(tmp_path, name="runs", /, **more):
    overrides = more.pop("overrides", ())
    return run_recipe(recipe_from_mapping(RECIPE, overrides=overrides), tmp_path / name, device="cpu", **more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    (result,) = run(tmp_path_factory.mktemp("trained"), closing=False)
    return result


def test_a_run_leaves_what_it_found_and_a_picture_of_predictions(trained):
    assert trained.steps == 4
    assert json.loads((trained.folder / "result.json").read_text())["score"] == "top1"
    assert (trained.folder / "pictures" / "predictions.png").is_file()


def test_a_run_starts_from_the_trained_weights_of_another(trained, tmp_path):
    still = ["training.optimizer.lr=1.0e-12", "training.steps_per_epoch=1", "training.batch_size=4"]
    (again,) = run(tmp_path, overrides=still, weights_from=trained.folder, closing=False)
    (fresh,) = run(tmp_path, "fresh", overrides=still, closing=False)
    assert again.metrics["loss"] == pytest.approx(trained.metrics["loss"], abs=1e-4)
    assert fresh.metrics["loss"] != pytest.approx(trained.metrics["loss"], abs=1e-4)


def test_weights_of_another_model_are_refused_before_anything_is_written(trained, tmp_path):
    with pytest.raises(UsageError, match="are not those of this recipe's model and task"):
        run(tmp_path, overrides=["backbone.width=24"], weights_from=trained.folder)
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_a_run_from_one_start_is_not_resumed_from_another(trained, tmp_path, monkeypatch):
    def lost(*_):
        raise RunError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("reorder_core.training.session.Session._save", lost)
        with pytest.raises(RunError, match="the disk is full"):
            run(tmp_path, weights_from=trained.folder)
    with pytest.raises(UsageError, match="belongs to another start"):
        run(tmp_path, resume=True)
    (result,) = run(tmp_path, resume=True, weights_from=trained.folder, closing=False)
    assert result.steps == 4


def test_a_task_that_cannot_work_with_a_model_says_so_before_the_first_step(tmp_path, monkeypatch, capsys):
    def refuse(self, model):
        raise UsageError(f"no task for {type(model.backbone).__name__}: choose another")

    monkeypatch.setattr(Classification, "refuse_model", refuse, raising=False)
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(RECIPE))
    assert main(["run", str(path), "--device", "cpu", "--out", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "no task for VitBackbone: choose another"
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_a_picture_that_cannot_be_drawn_takes_no_run_with_it(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(Classification, "draw_prediction", broken)
    (result,) = run(tmp_path, closing=False)
    assert (result.folder / "result.json").is_file()
    shown = capsys.readouterr()
    assert "no picture of predictions (no ink); the run itself is saved" in shown.out + shown.err


def test_drawing_leaves_the_random_state_alone(tmp_path, monkeypatch):
    """What is trained after a run does not depend on whether its task draws."""
    states = []
    for draws in (True, False):
        if not draws:
            monkeypatch.delattr(Classification, "draw_prediction")
        run(tmp_path, str(draws), closing=False)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
