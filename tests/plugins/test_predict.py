"""`reorder predict`: what is planted in runs is found, chance is called too thin, bad input is one sentence."""

from __future__ import annotations

import itertools
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from reorder_predict.correlation import correlate, holm, kendall, permutation_p
from reorder_predict.picture import places
from reorder_predict.statistics import order_statistics
from scipy.stats import kendalltau, spearmanr

from reorder_core import ComponentRef, Context, Grid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.rank_correlation import spearman
from reorder_core.recipe import load_recipe

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
GRID = Grid(8, 8)
NAMES = ["row_major", "column_major", "snake", "hilbert", "spiral", "diagonal", "zigzag", "morton", "peano"]
IMAGES = 120
BASE = ["data={name: cluttered_digits, train: 256, validation: 120, size: 32}", "patch.size=4", "controls=[]"]
VIT = "backbone={name: vit, width: 16, depth: 1, heads: 2}"


def order_of(name):
    context = Context(GRID, builder=Catalogue.load().build).changed()
    return Catalogue.load().build(ComponentRef("ordering", name), context).permutation(GRID)


@lru_cache
def resolved(*changes):
    return load_recipe(SMOKE, ["policy=null", *BASE, *changes]).resolved()


def write_run(folder, name="row_major", value=0.5, *, changes=(), order=None, called=None, score_S=None, seed=0):
    """A finished run as `reorder run` leaves it, with the accuracy that a test wants."""
    recipe = {**resolved(*changes), "ordering": {"name": name}, "seed": seed}
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    order_N = order_of(name) if order is None else np.asarray(order)
    policy = None if recipe["policy"] is None else recipe["policy"]["name"]
    provenance = {"run": name, "seed": seed, "policy": policy, "initial_order": name}
    saved = {"name": called or name, "grid": "8x8", "permutation": order_N.tolist(), "provenance": provenance}
    (folder / "order.json").write_text(json.dumps(saved))
    if score_S is None:
        score_S = (np.arange(IMAGES) < value * IMAGES).astype(np.float32)
    np.save(folder / "scores.npy", score_S)
    result = {"primary": "top1", "higher_is_better": True, "metrics": {"top1": value, "loss": 1.0}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_prior(path, reduction, **changes):
    ranking = [
        {"ordering": name, "bytes": 100 * (1 - value), "reduction": value, "interval": [0, 1], "statistics": more}
        for name, (value, more) in reduction.items()
    ]
    table = {"data": "cluttered_digits", "images": 9, "grid": [8, 8], "patch": 4, "tokenizer": {"name": "uniform"}}
    path.write_text(json.dumps({**table, "compressor": {"name": "lzma"}, "ngram": [1], "ranking": ranking, **changes}))
    return path


def predict(capsys, *arguments):
    assert main(["predict", *map(str, arguments), "--no-images", "--json", "--resamples", "300"]) == 0
    return json.loads(capsys.readouterr().out)


def row_of(found, statistic, model=None):
    rows = [row for row in found["between_orders"] if row["statistic"] == statistic]
    return next(row for row in rows if model is None or row["model"] == model)


@pytest.fixture
def unpainted(monkeypatch):
    """Pictures take longer than all the rest, and are looked at by other tests."""
    monkeypatch.setattr("reorder_predict.picture.draw_model", lambda *arguments: None)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Two models: the accuracy of one is the prior's reduction, that of the other is chance; as run folders."""
    root = tmp_path_factory.mktemp("planted")
    chance = np.random.default_rng(3).permutation(len(NAMES))
    runs = []
    for number, name in enumerate(NAMES):
        runs.append(write_run(root / f"mamba_{name}", name, 0.3 + 0.02 * number))
        runs.append(write_run(root / f"vit_{name}", name, 0.4 + 0.01 * chance[number], changes=[VIT]))
    reduction = {
        name: (0.1 + 0.01 * n, {"unigram_entropy": 3.0, "bytes_again": 5.0 - n}) for n, name in enumerate(NAMES)
    }
    return runs, write_prior(root / "prior.json", reduction)


def test_accuracy_that_is_a_statistic_is_found_and_chance_is_too_thin(planted, tmp_path, capsys):
    runs, prior = planted
    found = predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out")
    row = row_of(found, "reduction", "mamba")
    assert row["spearman"] == {"value": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1)}
    assert row["kendall"]["value"] == pytest.approx(1)
    assert (row["pairs"], row["predicts"], row["verdict"]) == (9, True, "predicts: more is better")
    assert row_of(found, "bytes_again", "mamba")["spearman"]["value"] == pytest.approx(-1)
    by_chance = row_of(found, "reduction", "vit")
    assert by_chance["spearman"]["low"] < 0 < by_chance["spearman"]["high"]
    assert by_chance["verdict"].startswith("too thin: interval includes 0, p ")
    said = " ".join(found["summary"])
    assert "mamba: accuracy goes with" in said
    assert "vit: the evidence is too thin" in said
    assert "unigram_entropy is the same in every order, and can predict nothing" in found["notes"]
    assert row_of(found, "bytes_again", "mamba")["verdict"] == "same ranks as reduction, reversed"
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["orders_1_mamba.png", "orders_2_vit.png"]
    assert json.loads((tmp_path / "out" / "predict.json").read_text()) == found


def test_a_statistic_with_the_ranks_of_another_is_shown_and_not_tested_again(tmp_path, capsys, unpainted):
    """Bigram entropy and mutual information, where every order has the unigram entropy 3: twice 3 is their sum."""
    chance = np.random.default_rng(3).permutation(len(NAMES))
    rows = {
        name: (0.1 + 0.01 * chance[n], {"bigram_entropy": 2 + n / 7, "mutual_information": 2 * 3 - (2 + n / 7)})
        for n, name in enumerate(NAMES)
    }
    rows["snake"][1].update(bigram_entropy=2 + 1e-15, mutual_information=4 - 3e-15)  # as row_major's, but for rounding
    prior = write_prior(tmp_path / "p.json", rows)
    runs = [write_run(tmp_path / name, name, 0.2 + 0.03 * n) for n, name in enumerate(NAMES)]
    found = predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out")
    first, twin = row_of(found, "bigram_entropy"), row_of(found, "mutual_information")
    assert (first["same_ranks_as"], twin["same_ranks_as"]) == (None, "bigram_entropy")
    assert (twin["verdict"], twin["p_holm"], twin["predicts"]) == ("same ranks as bigram_entropy, reversed", None, None)
    assert twin["spearman"]["value"] == pytest.approx(-first["spearman"]["value"])
    tested = [row for row in found["between_orders"] if row["same_ranks_as"] is None]
    assert {row["statistic"] for row in tested} == {
        "neighbour_distance",
        "unit_steps",
        "tau_to_row_major",
        "reduction",
        "bigram_entropy",
    }
    assert [row["p_holm"] for row in tested] == pytest.approx(holm([row["p"] for row in tested]))
    assert first["p_holm"] == pytest.approx(5 * first["p"]), "the strongest of five tests, not of six"
    assert "mutual_information" not in found["summary"][0]


def test_ranks_are_compared_over_the_same_orders_only(tmp_path, capsys, unpainted):
    rows = {name: (0.01 * n, {"entropy": 1.0 * n} if n else {}) for n, name in enumerate(NAMES[:6])}
    runs = [write_run(tmp_path / name, name, 0.2 + 0.03 * n) for n, name in enumerate(NAMES[:6])]
    prior = write_prior(tmp_path / "p.json", rows)
    found = predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out")
    assert (row_of(found, "entropy")["pairs"], row_of(found, "entropy")["same_ranks_as"]) == (5, None)


def test_a_model_that_was_not_seen_is_predicted_from_one_like_it(tmp_path, capsys, unpainted):
    reduction = {name: (0.1 + 0.01 * n, {}) for n, name in enumerate(NAMES)}
    prior = write_prior(tmp_path / "prior.json", reduction)
    runs = [write_run(tmp_path / f"a_{name}", name, 0.2 + 0.03 * n) for n, name in enumerate(NAMES)]
    runs += [write_run(tmp_path / f"b_{name}", name, 0.7 + 0.01 * n, changes=[VIT]) for n, name in enumerate(NAMES)]
    found = predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out")
    told = {each["predictor"]: each for each in found["leave_one_model_out"]}
    assert told["mean"]["r2"] == pytest.approx(0)
    assert told["mean"]["models"][0]["rank"] is None
    assert told["reduction"]["r2"] == pytest.approx(1)
    assert [model["rank"] for model in told["reduction"]["models"]] == [pytest.approx(1)] * 2
    assert told["the order's mean in the other models"]["r2"] == pytest.approx(1)
    assert told["all statistics"]["r2"] > told["tau_to_row_major"]["r2"]


def test_few_orders_are_too_thin_however_well_they_agree(tmp_path, capsys, unpainted):
    runs = [write_run(tmp_path / name, name, 0.2 + 0.1 * n) for n, name in enumerate(NAMES[:4])]
    prior = write_prior(tmp_path / "p.json", {name: (0.1 * n, {}) for n, name in enumerate(NAMES[:4])})
    row = row_of(predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out"), "reduction")
    assert row["spearman"]["value"] == pytest.approx(1)
    assert row["p"] == pytest.approx(2 / 24)
    assert row["exact"]
    assert row["verdict"].startswith("too thin: 4 orders")


def test_seeds_are_averaged_and_counted_and_repeats_are_not(tmp_path, capsys, unpainted):
    runs = [write_run(tmp_path / name, name, 0.2 + 0.1 * n) for n, name in enumerate(NAMES[:3])]
    more = write_run(tmp_path / "more", NAMES[0], 0.4, seed=1)
    again = write_run(tmp_path / "again", NAMES[0], 0.9)
    found = predict(capsys, *runs, more, again, runs[0], "--out", tmp_path / "out")
    first = next(cell for cell in found["table"] if cell["order"] == "row_major")
    assert first["seeds"] == [0, 1]
    assert first["top1"] == pytest.approx(0.3)
    assert any(str(again) in note and "the same model, order and seed" in note for note in found["notes"])


def test_controls_count_and_learned_orders_are_named(tmp_path, capsys, unpainted):
    learned_N = np.random.default_rng(0).permutation(64)
    main_run = write_run(tmp_path / "main", value=0.6, changes=["policy=reinforce"], order=learned_N, called="smoke")
    write_run(main_run / "controls" / "spiral", value=0.5, order=order_of("spiral"), called="spiral")
    static = write_run(main_run / "controls" / "learned_static", value=0.4, order=learned_N, called="learned_static")
    unfinished = write_run(main_run / "controls" / "hilbert", order=order_of("hilbert"), called="hilbert")
    (unfinished / "result.json").unlink()
    write_run(main_run / "controls" / "random_each_batch", changes=["policy=uniform"])
    prior = write_prior(tmp_path / "p.json", {"spiral": (0.2, {})})
    found = predict(capsys, main_run, "--prior", prior, "--out", tmp_path / "out")
    cells = {cell["order"]: cell for cell in found["table"]}
    assert [*cells] == ["spiral", "learned (reinforce)", "learned_static (reinforce)"]
    assert cells["learned (reinforce)"]["learned"]
    assert cells["learned_static (reinforce)"]["runs"] == [str(static)]
    own = order_statistics(learned_N[None], GRID)
    assert cells["learned (reinforce)"]["statistics"]["unit_steps"] == pytest.approx(own["unit_steps"])
    notes = " ".join(found["notes"])
    assert "a learned order stands in no prior table" in notes
    assert "hilbert is left out: this control is not finished" in notes
    assert "it was trained in a new random order every batch" in notes
    assert "2 of 3 orders were learned" in notes
    assert "learned_static (reinforce) is the permutation of learned (reinforce): the two count as orders" in notes


def test_orders_are_matched_to_priors_by_their_permutation_not_their_name(tmp_path, capsys, unpainted):
    runs = [write_run(tmp_path / name, name, 0.2 + 0.1 * n) for n, name in enumerate(NAMES[:3])]
    across_N = order_of("snake").reshape(8, 8) % 8 * 8 + order_of("snake").reshape(8, 8) // 8
    runs.append(write_run(tmp_path / "across", "snake", 0.9, order=across_N.ravel()))
    prior = write_prior(tmp_path / "p.json", {name: (0.1 * n, {}) for n, name in enumerate(NAMES[:3])})
    found = predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out")
    known = {cell["order"]: cell["statistics"]["reduction"] for cell in found["table"]}
    assert known == {"row_major": 0.0, "column_major": 0.1, "snake": 0.2, "snake 2": None}
    assert any("snake 2 is not in it, or stands there with another permutation" in note for note in found["notes"])
    rows = {"snake:axis=columns": (0.7, {})}
    prior = write_prior(tmp_path / "q.json", rows, orders={"snake:axis=columns": across_N.ravel().tolist()})
    found = predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out")
    known = {cell["order"]: cell["statistics"]["reduction"] for cell in found["table"]}
    assert known == {"row_major": None, "column_major": None, "snake": None, "snake 2": 0.7}
    assert any(note.startswith("reduction and mamba: 1 orders with both") for note in found["notes"])


def test_models_of_one_name_are_told_apart_by_their_settings(tmp_path, capsys, unpainted):
    runs = []
    for width in (16, 32):
        changes = [f"backbone={{name: vit, width: {width}, depth: 1, heads: 2}}"]
        runs += [write_run(tmp_path / f"{n}_{width}", n, 0.01 * i, changes=changes) for i, n in enumerate(NAMES[:3])]
    found = predict(capsys, *runs, "--out", tmp_path / "out")
    assert {cell["model"] for cell in found["table"]} == {"vit (width 16)", "vit (width 32)"}


def test_two_priors_stand_side_by_side_and_what_they_share_is_tested_once(tmp_path, capsys, unpainted):
    runs = [write_run(tmp_path / name, name, 0.2 + 0.1 * n) for n, name in enumerate(NAMES[:4])]
    rows = {name: (0.1 * n, {"bigram_entropy": 2.0 - 0.1 * n}) for n, name in enumerate(NAMES[:4])}
    one = write_prior(tmp_path / "a.json", rows)
    rows = {name: (0.2 * n, more) for n, (name, (_, more)) in enumerate(rows.items())}
    other = write_prior(tmp_path / "b.json", rows, compressor={"name": "zlib"})
    found = predict(capsys, *runs, "--prior", one, "--prior", other, "--out", tmp_path / "out")
    names = [row["statistic"] for row in found["between_orders"]]
    assert {"reduction (lzma)", "reduction (zlib)"} <= {*names}
    assert sum(name.startswith("bigram_entropy") for name in names) == 1


def test_a_prior_of_two_ngrams_has_two_reductions(tmp_path, capsys, unpainted):
    runs = [write_run(tmp_path / name, name, 0.2 + 0.1 * n) for n, name in enumerate(NAMES[:3])]
    rows = {name: (0.1 * n, {}) for n, name in enumerate(NAMES[:3])}
    sizes = {str(g): {name: {"reduction": (3 - 2 * g) * n} for n, name in enumerate(NAMES[:3])} for g in (1, 2)}
    prior = write_prior(tmp_path / "p.json", rows, ngram=[1, 2], by_ngram=sizes)
    found = predict(capsys, *runs, "--prior", prior, "--out", tmp_path / "out")
    told = [row_of(found, f"reduction[{ngram}-gram]")["spearman"]["value"] for ngram in (1, 2)]
    assert told == [pytest.approx(1), pytest.approx(-1)]
    assert "reduction" not in {row["statistic"] for row in found["between_orders"]}


def test_an_unfinished_run_among_finished_ones_is_left_out_with_a_note(tmp_path, capsys, unpainted):
    runs = [write_run(tmp_path / name, name, 0.2 + 0.1 * n) for n, name in enumerate(NAMES[:4])]
    (runs[3] / "result.json").unlink()
    found = predict(capsys, *runs, "--out", tmp_path / "out")
    assert len(found["table"]) == 3
    assert any("the run is not finished" in note for note in found["notes"])


def test_a_saved_order_that_a_policy_learned_is_no_fixed_order(tmp_path, capsys, unpainted):
    saved = write_run(tmp_path / "taught", "hilbert", 0.2)
    order = json.loads((saved / "order.json").read_text())
    order["provenance"]["policy"] = "reinforce"
    (tmp_path / "learned.json").write_text(json.dumps(order))
    runs = [write_run(tmp_path / name, name, 0.3 + 0.1 * n) for n, name in enumerate(NAMES[:3])]
    file = write_run(tmp_path / "file", "spiral", 0.9)
    recipe = (file / "recipe.yaml").read_text()
    changed = yaml.safe_load(recipe) | {"ordering": {"name": "file", "path": str(tmp_path / "learned.json")}}
    (file / "recipe.yaml").write_text(yaml.safe_dump(changed))
    found = predict(capsys, *runs, file, "--out", tmp_path / "out")
    (learned,) = (row["order"] for row in found["table"] if row["learned"])
    assert "that reinforce learned (learned.json)" in learned
    found = predict(capsys, *runs, file, "--fixed-only", "--out", tmp_path / "out")
    assert len(found["table"]) == 3


def test_regressions_that_chance_equals_are_no_evidence(tmp_path, capsys, unpainted):
    """Two models like the same orders, for no reason that a statistic knows."""
    values = [0.5, 0.2, 0.7, 0.3, 0.6, 0.4]
    runs = [
        write_run(tmp_path / f"{width}{name}", name, value, changes=[f"backbone.width={width}"])
        for width in (16, 32)
        for name, value in zip(NAMES, values, strict=False)
    ]
    found = predict(capsys, *runs, "--out", tmp_path / "out")
    chance = found["leave_one_model_out_by_chance"]
    assert 0.05 < chance <= 1
    (said,) = (line for line in found["summary"] if line.startswith("leave one model out"))
    assert "too thin" in said or "nothing predicts" in said


BAD = {
    "nothing there": ("nowhere", "nowhere: there is no such run"),
    "no run": ("{tmp}/empty", "is no folder of a run: give the folder that holds recipe.yaml and result.json"),
    "above runs": ("{tmp}/study", "is no folder of a run: did you mean"),
    "unfinished": ("{tmp}/unfinished", "the run is not finished, continue it with `reorder run … --resume`"),
    "broken": ("{tmp}/broken", "cannot be read"),
    "other data": ("{tmp}/study/0 {tmp}/other", "data.train is 256 in"),
    "one order": ("{tmp}/study/0", "the model mamba has run in one order only, and a correlation needs three"),
    "all equal": ("{tmp}/study/0 {tmp}/study/1 {tmp}/study/2", "all 3 accuracies of the model mamba are equal"),
    "only random": ("{tmp}/uniform", "there is no run of one order in what was named"),
    "no prior file": ("{fine} --prior nowhere.json", "nowhere.json: there is no such prior table"),
    "no prior": ("{fine} --prior {tmp}/broken/result.json", "is no prior table"),
    "other grid": (
        "{fine} --prior {tmp}/grid.json",
        "is about a grid of 4x4 patches of 8 pixels and the runs read 8x8",
    ),
    "prior of other data": ("{fine} --prior {tmp}/data.json", "is about the data set 'cifar10' and the runs are on"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    (root / "empty").mkdir()
    for number, name in enumerate(NAMES[:3]):
        write_run(root / "study" / str(number), name)
    (write_run(root / "unfinished") / "result.json").unlink()
    (write_run(root / "broken") / "result.json").write_text('{"primary": 3')
    write_run(root / "other", changes=["data={name: cluttered_digits, train: 512, validation: 120, size: 32}"])
    write_run(root / "uniform", changes=["policy=uniform"])
    fine = [str(write_run(root / f"fine{n}", name, 0.1 * n)) for n, name in enumerate(NAMES[:3])]
    write_prior(root / "grid.json", {"snake": (0.1, {})}, grid=[4, 4], patch=8)
    write_prior(root / "data.json", {"snake": (0.1, {})}, data="cifar10")
    return {"tmp": str(root), "fine": " ".join(fine)}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case, bad, capsys):
    arguments, said = BAD[case]
    assert main(["predict", *arguments.format(**bad).split(), "--no-images"]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "unexpected" not in printed


def test_no_runs_at_all(capsys):
    assert main(["predict"]) == 2
    assert "RUNS" in capsys.readouterr().err


def test_correlations_are_scipys():
    rng = np.random.default_rng(0)
    x_RM, y_RM = rng.integers(0, 5, size=(2, 20, 9)).astype(float)
    np.testing.assert_allclose(spearman(x_RM, y_RM), [spearmanr(x, y)[0] for x, y in zip(x_RM, y_RM, strict=True)])
    np.testing.assert_allclose(kendall(x_RM, y_RM), [kendalltau(x, y)[0] for x, y in zip(x_RM, y_RM, strict=True)])


def test_the_permutation_p_is_the_share_of_pairings_and_random_ones_come_near_it():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=7), rng.normal(size=7)
    observed = abs(spearmanr(x, y)[0])
    every = [abs(spearmanr(x, np.array(each))[0]) for each in itertools.islice(itertools.permutations(y), 0, 5040, 7)]
    p, exact = permutation_p(x, y, rng)
    assert exact
    assert p == pytest.approx(np.mean(np.array(every) >= observed - 1e-9), abs=0.05)
    long_x, long_y = np.arange(9.0), np.arange(9.0)
    p, exact = permutation_p(long_x, long_y, rng)
    assert not exact
    assert 0 < p < 1e-3


def test_noise_is_seldom_called_more_than_noise():
    """Over many draws of chance, the exact p is below 5 % in at most 5 % of them, and the intervals hold 0 mostly."""
    rng = np.random.default_rng(5)
    found = [correlate(rng.normal(size=7), rng.normal(size=7), 200, rng) for _ in range(40)]
    assert np.mean([each.p < 0.05 for each in found]) <= 0.12
    assert np.mean([each.spearman.excludes_zero for each in found]) < 0.35


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_statistics_of_known_orders():
    of = {name: order_statistics(order_of(name)[None], GRID) for name in ("row_major", "snake")}
    assert of["snake"] == {
        "neighbour_distance": 1,
        "unit_steps": 1,
        "tau_to_row_major": pytest.approx(1 - 2 * 4 * 28 * 2 / (64 * 63)),
    }
    assert of["row_major"]["tau_to_row_major"] == 1
    assert of["row_major"]["unit_steps"] == pytest.approx(56 / 63)
    assert of["row_major"]["neighbour_distance"] == pytest.approx((56 + 7 * np.sqrt(50)) / 63)


def test_names_in_the_picture_do_not_cover_each_other():
    at_M2 = np.array([[0.1, 0.5], [0.11, 0.51], [0.9, 0.5], [0.5, 0.5]])
    found = places(at_M2, [0.2] * 4)
    boxes = [(x - 0.2, x, y) if to_left else (x, x + 0.2, y) for x, y, to_left in found]
    for one, other in itertools.combinations(boxes, 2):
        assert one[1] <= other[0] or other[1] <= one[0] or abs(one[2] - other[2]) > 0.04


def test_a_run_that_is_read_as_a_whole_is_refused_in_part(tmp_path):
    from reorder_predict.runs import read_runs

    folder = write_run(tmp_path / "run")
    (folder / "scores.npy").unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        read_runs([folder])
