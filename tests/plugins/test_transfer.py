"""`reorder transfer`: orders are carried and tried, differences are paired, and what is finished is not made again."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reorder_transfer.cells
from matplotlib.figure import Figure
from reorder_transfer.matrix import Row, differences, over_seeds
from reorder_transfer.picture import draw
from reorder_transfer.report import print_matrix
from reorder_transfer.sources import read_source, read_sources
from rich.console import Console
from scipy import stats

import reorder_core.training.loop
from reorder_core import Grid, UsageError
from reorder_core.bootstrap import Interval, paired_bootstrap
from reorder_core.carried import carry
from reorder_core.cli.main import main
from reorder_core.evaluated import Evaluated, evaluated, evaluated_run
from reorder_core.opened import open_run
from reorder_core.recipe import load_recipe
from reorder_core.running import Stopped, run_recipe

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
SMALL = ["training.epochs=1", "training.steps_per_epoch=3", "backbone.depth=1", "backbone.width=16"]
SETTINGS = [part for each in SMALL for part in ("-o", each)]
CROSS = ["-o", "backbone.direction=cross", "-o", "backbone.orders=2", "-o", "ordering=[row_major, hilbert]"]
ORDER_2x2 = [3, 0, 1, 2]


def test_ctrl_c_in_the_last_step_of_a_run_is_heard(tmp_path, monkeypatch):
    step, taken = reorder_core.training.loop.train_step, []

    def interrupted(*arguments, **named):
        taken.append(1)
        if len(taken) == 3:  # of 3
            signal.raise_signal(signal.SIGINT)
        return step(*arguments, **named)

    monkeypatch.setattr(reorder_core.training.loop, "train_step", interrupted)
    recipe = load_recipe(SMOKE, [*SMALL, "policy=null", "controls=[]"])
    with pytest.raises(Stopped, match="finished and saved"):
        run_recipe(recipe, tmp_path, device="cpu", closing=False)
    assert len(list(tmp_path.glob("*/*/result.json"))) == 1


@pytest.fixture(scope="module", autouse=True)
def _without_pictures_of_predictions():
    """A second each, and none of this command's business."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("reorder_core.training.session.draw_predictions", lambda trainer, folder: "")
        yield


@pytest.fixture(scope="module")
def order_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("orders") / "found.json"
    path.write_text(json.dumps({"name": "found", "grid": "2x2", "permutation": ORDER_2x2}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that learns, and a control with a fixed order below it."""
    out = tmp_path_factory.mktemp("runs")
    phases = ["-o", "training.phases.warm_up=0", "-o", "training.phases.learn=1", "-o", "controls=[hilbert]"]
    assert main(["run", str(SMOKE), "--out", str(out), "--device", "cpu", *SETTINGS, *phases]) == 0
    (folder,) = (out / "smoke").iterdir()
    return folder


def transfer(*arguments):
    return main(["transfer", "--device", "cpu", *SETTINGS, *map(str, arguments)])


@pytest.fixture(scope="module")
def found(tmp_path_factory, order_file):
    """All three ways, of one seed: the folder and the rows by (mode, from)."""
    out = tmp_path_factory.mktemp("transfer")
    modes = ("--mode", "evaluate,finetune,scratch")
    assert transfer(order_file, "--to", SMOKE, *modes, "--out", out) == 0
    rows = json.loads((out / "transfer.json").read_text())["matrix"]
    return out, {(row["mode"], row["from"]): row for row in rows}


def test_a_run_a_control_and_a_file_are_sources(run, order_file):
    learned, fixed, file, again = read_sources([run, run / "controls" / "hilbert", order_file, order_file])
    assert (learned.label, learned.kind, learned.grid) == ("smoke", "learned", Grid(4, 4))
    assert (fixed.label, fixed.kind) == ("hilbert (fixed)", "fixed")
    assert (file.label, file.kind, again.label) == ("found", "file", "found-2")
    assert file.order_N.tolist() == ORDER_2x2


def test_an_evaluation_is_what_the_run_wrote_down(run):
    ended = evaluated_run(run)
    now = evaluated(open_run(run, "cpu"))
    assert now.metrics == pytest.approx(dict(ended.metrics))
    np.testing.assert_array_equal(now.score_S, ended.score_S)
    assert now.value == ended.value
    assert (now.primary, now.score, now.higher_is_better) == ("top1", "top1", True)
    np.testing.assert_array_equal(now.order_N, ended.order_N)
    backwards = evaluated(open_run(run, "cpu"), ended.order_N[::-1])
    assert backwards.metrics["loss"] != now.metrics["loss"]
    with pytest.raises(Exception, match="repeats patch 0"):
        evaluated(open_run(run, "cpu"), [0] * 16)


def test_orders_are_carried_and_read(found):
    out, rows = found
    (folder,) = rows["scratch", "found"]["folders"]
    read = json.loads((Path(folder) / "order.json").read_text())["permutation"]
    assert read == carry(ORDER_2x2, Grid(2, 2), Grid(4, 4)).tolist()
    assert json.loads(Path(rows["scratch", "found"]["order"]).read_text())["permutation"] == read
    assert (out / "transfer.png").stat().st_size > 1000


def test_every_way_has_every_order(found):
    _, rows = found
    names = ("found", "row_major", "own")
    assert [*rows] == [(mode, name) for mode in ("evaluate", "finetune", "scratch") for name in names]
    kinds = [rows["finetune", name]["kind"] for name in names]
    assert kinds == ["file", "ordering", "own"]


def test_the_base_is_the_run_from_scratch_in_its_own_order(found):
    """The recipe's own order is row by row here: its row, the base's and the named ordering's are one run."""
    _, rows = found
    assert rows["scratch", "own"]["folders"] == rows["scratch", "row_major"]["folders"]
    assert rows["evaluate", "own"]["value"] == rows["scratch", "own"]["value"]
    (base,) = rows["scratch", "own"]["folders"]
    (further,) = rows["finetune", "found"]["folders"]
    assert Path(further).parents[1].name.startswith("finetune-")
    assert (Path(base).parent.name, Path(base).parents[1].name) != (Path(further).parent.name, "scratch")


def test_differences_are_paired_and_of_the_right_order(found):
    _, rows = found
    for mode, against in (("scratch", "row_major"), ("finetune", "own")):
        row = rows[mode, "found"]
        ours, theirs = (evaluated_run(rows[mode, name]["folders"][0]) for name in ("found", against))
        expected = paired_bootstrap(ours.score_S, theirs.score_S)
        assert row["against"] == against
        assert row["difference"] == pytest.approx(expected.mean)
        assert (row["interval"]["low"], row["interval"]["high"]) == pytest.approx((expected.low, expected.high))
        assert row["interval_seeds"] is None
        assert rows[mode, against]["difference"] is None
    assert rows["evaluate", "found"]["against"] == "own"


def test_what_is_finished_is_not_made_again(found, order_file, monkeypatch, capsys):
    out, rows = found
    monkeypatch.setattr(reorder_transfer.cells, "run_recipe", None)
    monkeypatch.setattr(reorder_transfer.cells, "evaluated", None)
    modes = ("--mode", "scratch,evaluate,finetune")
    assert transfer(order_file, "--to", SMOKE, *modes, "--out", out, "--json") == 0
    printed = capsys.readouterr()
    again = json.loads(printed.out)["matrix"]
    assert again == [*rows.values()]
    assert printed.err.count("(finished before)") == 6


def test_more_seeds_go_on_in_the_same_folder(found, order_file, monkeypatch, capsys):
    """Stopped on the way, the same command goes on; with two seeds there is an interval over them."""
    out, _ = found
    made = []

    def stopped(recipe, *arguments, **named):
        if len(made) == 1:
            raise Stopped("stopped at step 1 of 3")
        made.append(recipe.seed)
        return run_recipe(recipe, *arguments, **named)

    run_recipe = reorder_transfer.cells.run_recipe
    command = (order_file, "--to", SMOKE, "--seeds", "0,1", "--out", out)
    with monkeypatch.context() as patched:
        patched.setattr(reorder_transfer.cells, "run_recipe", stopped)
        assert transfer(*command) == 130
    assert "the same command goes on" in capsys.readouterr().out.replace("\n", " ")
    assert transfer(*command) == 0
    printed = capsys.readouterr().out
    assert printed.count("(finished before)") == 3
    assert made == [1]
    assert "Student's t" in printed
    rows = {row["from"]: row for row in json.loads((out / "transfer.json").read_text())["matrix"]}
    row = rows["found"]
    assert row["seeds"] == [0, 1]
    scores = [[evaluated_run(path).score_S for path in rows[name]["folders"]] for name in ("found", "row_major")]
    mean_K = (np.array(scores[0]) - np.array(scores[1])).mean(axis=1)
    assert row["difference"] == pytest.approx(mean_K.mean())
    wanted = stats.ttest_1samp(mean_K, 0).confidence_interval()
    assert (row["interval_seeds"]["low"], row["interval_seeds"]["high"]) == pytest.approx((wanted.low, wanted.high))


def test_a_given_base(found, order_file, tmp_path, capsys):
    _, rows = found
    (base,) = rows["scratch", "found"]["folders"]
    modes = ("--mode", "evaluate", "--base", base)
    assert transfer(order_file, "--to", SMOKE, *modes, "--out", tmp_path) == 0
    made = {row["from"]: row for row in json.loads((tmp_path / "transfer.json").read_text())["matrix"]}
    assert made["own"]["value"] == rows["scratch", "found"]["value"]
    assert made["row_major"]["difference"] is not None
    capsys.readouterr()
    assert transfer(order_file, "--to", SMOKE, *modes, "--out", tmp_path, "-o", "backbone.width=32") == 2
    assert "another recipe" in (said := capsys.readouterr().err)
    assert "backbone differs" in said


def evaluation(score_S):
    return Evaluated({"loss": 1.0}, np.asarray(score_S), "loss", "loss", False, np.arange(4))


def test_differences_over_images_and_seeds():
    rng = np.random.default_rng(0)
    a_KS, b_KS = rng.normal(size=(2, 3, 40))
    images, seeds = differences([evaluation(a_S) for a_S in a_KS], [evaluation(b_S) for b_S in b_KS])
    assert images == paired_bootstrap(a_KS.mean(axis=0), b_KS.mean(axis=0))
    wanted = stats.ttest_1samp((a_KS - b_KS).mean(axis=1), 0).confidence_interval()
    assert (seeds.low, seeds.high) == pytest.approx((wanted.low, wanted.high))
    assert seeds.mean == pytest.approx(images.mean)
    assert over_seeds(np.array([0.3])) is None
    with pytest.raises(UsageError, match="as many images"):
        differences([evaluation([1.0]), evaluation([1.0, 2.0])], [evaluation([1.0])])
    with pytest.raises(UsageError, match="same images and seeds"):
        differences([evaluation([1.0, 2.0])], [evaluation([1.0])])


def row(**changed):
    images = Interval(-0.2, -0.3, -0.1)
    found = Row(
        "a", "file", "b", "scratch", "loss", "loss", False, (0,), (1.0,), "row_major", images, None, Path("o"), ()
    )
    return replace(found, **changed)


def test_a_lower_loss_is_better_and_the_wider_interval_counts(tmp_path):
    assert row().strength == pytest.approx(2)
    assert row(higher_is_better=True).strength == pytest.approx(-2)
    assert row(seeds=Interval(-0.2, -0.6, 0.2)).strength == pytest.approx(0.5)
    assert row(images=None).strength == 0
    assert row(images=Interval(-0.2, -0.2, -0.2)).strength == np.inf
    rows = [row(), row(to="c", images=Interval(0.2, 0.2, 0.2)), row(source="d", mode="evaluate", images=None)]
    assert draw(rows, tmp_path / "transfer.png").stat().st_size > 1000


def test_a_score_that_is_not_the_metric_is_named(tmp_path, capsys, monkeypatch):
    scored = row(metric="map50", score="f1 at IoU 0.5", higher_is_better=True)
    print_matrix([scored, row(to="c")], tmp_path, Console())
    printed = capsys.readouterr().out
    assert "b: the score of an image is f1 at IoU 0.5" in printed
    assert "c: the score" not in printed
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    with pytest.raises(FileNotFoundError):  # nothing was written
        draw([scored, row(to="c")], tmp_path / "transfer.png")
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert "f1 at IoU 0.5 -0.2000" in texts[0]
    assert "loss -0" not in texts[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{file}"], "--to RECIPE"),
        (["--to", "{smoke}"], "name what to carry"),
        (["{tmp}/none", "--to", "{smoke}"], "no such run or order file"),
        (["{tmp}", "--to", "{smoke}"], "no folder of a run"),
        (["{begun}", "--to", "{smoke}"], "is not finished"),
        (["{several}", "--to", "{smoke}"], "several orders at once"),
        (["{frames}", "--to", "{smoke}"], "as many frames"),
        (["{broken}", "--to", "{smoke}"], "holds no order"),
        (["{file}", "--to", "{smoke}", "--orders", "hilbrt"], "did you mean 'hilbert'"),
        (["{file}", "--to", "{smoke}", "--orders", ","], "--orders names nothing"),
        (["{file}", "--to", "{smoke}", "--mode", "scratchy"], "there is evaluate, finetune, scratch"),
        (["{file}", "--to", "{smoke}", "--seeds", "0,a"], "whole numbers"),
        (["{file}", "--to", "{smoke}", "--seeds", "0,,1"], "leaves one out"),
        (["{file}", "--to", "{smoke}", "--epochs", "2"], "add --mode finetune"),
        (["{file}", "--to", "{smoke}", "--mode", "evaluate", "--base", "{file}", "--seeds", "0"], "leave --seeds out"),
        (["{file}", "--to", "{smoke}", "--to", "{smoke}", "--mode", "evaluate", "--base", "x"], "one at a time"),
        (["{file}", "--to", "{smoke}", "--mode", "evaluate", "--base", "{begun}"], "is not finished"),
        (["{file}", "--to", "{smoke}", *CROSS], "reads 2 orders at once"),
        (["{file}", "--to", "{smoke}", "{precise}"], "different precision (auto, fp32)"),
    ],
)
def test_one_sentence_for_what_cannot_be(arguments, said, order_file, tmp_path, capsys):
    files = {"smoke": SMOKE, "tmp": tmp_path, "file": order_file, "begun": tmp_path / "begun"}
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").write_text(SMOKE.read_text())
    files["precise"] = tmp_path / "precise.yaml"
    files["precise"].write_text(SMOKE.read_text() + "  precision: fp32\n")
    order = {"name": "x", "grid": "2x2", "permutation": ORDER_2x2}
    written = {
        "several": order | {"provenance": {"further_orders": [[0, 1, 2, 3]]}},
        "frames": order | {"grid": "2x1x2"},
        "broken": {"grid": "2x2"},
    }
    for name, content in written.items():
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps(content))
    if arguments[0] == "{tmp}":
        files["tmp"] = tmp_path / "empty"
        files["tmp"].mkdir()
    given = [each.format(**files) for each in arguments]
    assert transfer(*given, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_an_order_file_of_many_or_of_twice_the_same_patch(tmp_path):
    path = tmp_path / "order.json"
    for order, said in (([[0, 1], [1, 0]], "holds 2 orders"), ([0, 0], "repeats patch 0")):
        path.write_text(json.dumps({"grid": "1x2", "permutation": order}))
        with pytest.raises(UsageError, match=said):
            read_source(path)
