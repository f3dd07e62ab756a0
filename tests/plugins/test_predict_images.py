"""`reorder predict` within one data set: planted likeness is found along its order, and only when it is there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from reorder_predict.logistic import logistic_slope
from reorder_predict.variation import measure
from reorder_predict.within import partial_spearman, telling
from scipy.stats import spearmanr

from reorder_core.cli.main import main
from reorder_core.opened import open_recipe
from reorder_core.patches import cut
from reorder_core.recipe import load_recipe

_SPEC = importlib.util.spec_from_file_location("predict_runs", Path(__file__).parent / "test_predict.py")
runs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(runs)
IMAGES = 400
DATA = "data={name: cluttered_digits, train: 256, validation: 400, size: 32}"


@pytest.fixture(scope="module")
def images():
    """The data set of the runs, and the variation of its images along three orders."""
    opened = open_recipe(load_recipe(runs.SMOKE, ["policy=null", *runs.BASE, DATA]), "cpu")
    orders = [runs.order_of(name)[None] for name in runs.NAMES[:3]]
    return opened, measure(opened, orders, IMAGES, 64)


def test_variation_is_that_of_consecutive_patches(images):
    opened, variation = images
    batch = opened.dataset.validation.load([0, 399], 0)
    for row, name in enumerate(runs.NAMES[:3]):
        patches_BNP = cut(batch.images_BCHW.numpy(), opened.grid)[:, runs.order_of(name)]
        direct_B = np.abs(patches_BNP[:, 1:] - patches_BNP[:, :-1]).mean(axis=(1, 2))
        np.testing.assert_allclose(variation.along_OS[row, [0, 399]], direct_B, rtol=1e-5)
    np.testing.assert_allclose(variation.row_major_S, variation.along_OS[0])


def test_planted_likeness_is_found_and_noise_is_not(images, tmp_path, capsys):
    """Images that vary little from column to column, given how they vary row by row, are right; else it is chance."""
    _, variation = images
    column_S, row_S = (np.argsort(np.argsort(variation.along_OS[number])) for number in (1, 0))
    noise = np.random.default_rng(0)
    surprise_S = column_S - row_S * np.corrcoef(column_S, row_S)[0, 1]
    planted_S = (surprise_S + noise.normal(scale=30, size=IMAGES) < np.median(surprise_S)).astype(np.float32)
    folders = [
        runs.write_run(tmp_path / "c", "column_major", 0.5, changes=[DATA], score_S=planted_S),
        runs.write_run(tmp_path / "s", "snake", 0.6, changes=[DATA], score_S=noise.integers(0, 2, IMAGES)),
        runs.write_run(tmp_path / "r", "row_major", 0.7, changes=[DATA], score_S=np.ones(IMAGES)),
    ]
    out = tmp_path / "out"
    assert main(["predict", *map(str, folders), "--json", "--out", str(out), "--resamples", "300"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["order"]: row for row in found["within_images"]}
    assert rows["column_major"]["verdict"] == "alike is better"
    assert rows["column_major"]["partial"]["high"] < -0.3
    assert rows["column_major"]["slope"]["high"] < 0
    assert rows["column_major"]["controls"] == ["variation row by row", "contrast", "class"]
    assert rows["snake"]["verdict"].startswith("no verdict"), "a snake varies as rows do"
    assert "row_major" not in rows
    assert any("row_major: all images have the same score" in note for note in found["notes"])
    assert (out / "images.png").read_bytes()[:4] == b"\x89PNG"


def test_row_by_row_only_the_contrast_is_held_fixed_and_tables_are_printed(images, tmp_path, capsys):
    _, variation = images
    score_S = (variation.row_major_S > np.median(variation.row_major_S)).astype(np.float32)
    folders = [
        runs.write_run(tmp_path / name, name, 0.1 * n, changes=[DATA], score_S=score_S)
        for n, name in enumerate(runs.NAMES[:3])
    ]
    assert main(["predict", *map(str, folders), "--out", str(tmp_path / "out"), "--resamples", "100"]) == 0
    printed = capsys.readouterr().out
    assert "Within the data set" in printed
    (row,) = (
        each
        for each in json.loads((tmp_path / "out" / "predict.json").read_text())["within_images"]
        if each["order"] == "row_major"
    )
    assert row["controls"] == ["contrast", "class"]
    assert row["verdict"] == "alike is worse (contrast held fixed only)"


def test_scores_of_another_split_are_refused(tmp_path, capsys):
    folders = [
        runs.write_run(tmp_path / name, name, 0.1 * n, score_S=np.arange(77) % 2)
        for n, name in enumerate(runs.NAMES[:3])
    ]
    assert main(["predict", *map(str, folders)]) == 2
    assert "has 120 validation images now and the runs have scores of 77" in capsys.readouterr().err


def test_what_is_only_the_class_is_no_likeness():
    """Classes differ in variation and in how often they are right; within a class there is nothing."""
    rng = np.random.default_rng(0)
    class_S = rng.integers(0, 5, 2000)
    x_S, y_S = class_S + rng.normal(size=2000), class_S + rng.normal(size=2000)
    rho, without = partial_spearman([x_S, y_S], 300, np.random.default_rng(1))
    _, within = partial_spearman([x_S, y_S], 300, np.random.default_rng(1), class_S)
    assert rho.low > 0.5
    assert without.low > 0.5
    assert within.low < 0 < within.high


def test_partial_correlation_is_that_of_residuals():
    rng = np.random.default_rng(0)
    control_S = rng.normal(size=500)
    x_S, y_S = control_S + rng.normal(size=500), control_S + rng.normal(size=500)
    rho, partial = partial_spearman([x_S, y_S, control_S], 500, rng)
    assert rho.value == pytest.approx(spearmanr(x_S, y_S)[0])
    assert rho.low > 0.3
    assert partial.low < 0 < partial.high
    r_xy, r_xc, r_yc = (spearmanr(*pair)[0] for pair in ((x_S, y_S), (x_S, control_S), (y_S, control_S)))
    known = (r_xy - r_xc * r_yc) / np.sqrt((1 - r_xc**2) * (1 - r_yc**2))
    assert partial.value == pytest.approx(known)


def test_the_interval_is_about_that_of_theory():
    """Of two independent variables, Spearman's rho has the standard error 1 / sqrt(S - 1)."""
    rng = np.random.default_rng(1)
    rho, _ = partial_spearman([rng.normal(size=400), rng.normal(size=400)], 2000, rng)
    assert rho.high - rho.low == pytest.approx(2 * 1.96 / np.sqrt(399), rel=0.12)


def test_the_logistic_slope_is_recovered_and_separation_is_not_fitted():
    rng = np.random.default_rng(0)
    x_S, other_S = rng.normal(size=(2, 4000))
    right_S = (rng.random(4000) < 1 / (1 + np.exp(-(0.3 + 0.8 * x_S - 0.5 * other_S)))).astype(float)
    slope = logistic_slope(right_S, np.column_stack([x_S, other_S]))
    assert slope.low < 0.8 * x_S.std() < slope.high
    assert slope.p < 1e-10
    assert logistic_slope((x_S > 0).astype(float), x_S[:, None]) is None


def test_a_class_that_is_all_right_takes_nothing_from_the_slope_of_the_others():
    rng = np.random.default_rng(0)
    class_S, x_S = np.repeat([0, 1, 2], 400), rng.normal(size=1200)
    score_S = (rng.random(1200) < 1 / (1 + np.exp(-0.7 * x_S - class_S))).astype(float)
    wanted = logistic_slope(score_S[:800], np.column_stack([x_S, class_S == 1])[:800])
    score_S[class_S == 2] = 1
    dummy_SK = class_S[:, None] == [1, 2]
    assert logistic_slope(score_S, np.column_stack([x_S, dummy_SK])) is None
    told_S = telling(score_S, class_S)
    assert told_S.sum() == 800
    found = logistic_slope(score_S[told_S], np.column_stack([x_S, dummy_SK[:, 0]])[told_S])
    assert found == wanted
    assert telling(score_S, None).all()
