"""`reorder prior` and the ordering `compressibility`: recipes, folders, files, errors, and runs that start from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reorder_core import Grid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.conformance import check_ordering
from reorder_core.conformance import context as context_of
from reorder_core.recipe import load_recipe
from reorder_core.settings import ComponentRef

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
FEW = ["--orderings", "row_major,column_major,snake", "--workers", "1"]


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of 16x24 pixels in nested folders: every row of patches has a grey of its own."""
    root = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for number in range(12):
        place = root / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        grey_R = rng.integers(0, 256, size=4).astype(np.uint8)
        Image.fromarray(np.repeat(np.repeat(grey_R[:, None], 4, axis=0), 24, axis=1)).save(place / f"{number:02}.png")
    (root / "notes.txt").write_text("no picture")
    return root


def prior(*arguments, capsys):
    code = main(["prior", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(*arguments, capsys):
    code, out, err = prior(*arguments, "--json", capsys=capsys)
    assert code == 0, err
    return json.loads(out)


def test_a_recipe_is_ranked_and_written(tmp_path, capsys):
    file, out = tmp_path / "ranking.json", tmp_path / "out"
    code, printed, _ = prior(SMOKE, "--images", 64, "--together", 16, "--write", file, "--out", out, capsys=capsys)
    assert code == 0
    assert "digits: 64 images, 4x4 patches of 2 px, uniform (64 codes), lzma" in printed
    said = ("hilbert", "H|1", "TV", "unit", "behind", "transpose: left out", "compresses best", "By chance: 3 random")
    for word in said:
        assert word in printed
    saved = json.loads(file.read_text())
    assert saved == json.loads((out / "prior.json").read_text())
    assert (out / "prior.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["prior.json", "prior.png", file.name]
    assert (saved["data"], saved["images"], saved["grid"], saved["patch"]) == ("digits", 64, [4, 4], 2)
    assert saved["tokenizer"] == {"name": "uniform", "levels": 64}
    sizes = [row["bytes"] for row in saved["ranking"]]
    assert sizes == sorted(sizes)
    assert {*saved["chance"]} == {"random", "random:seed=1", "random:seed=2"} < {*saved["orders"]}
    assert {row["statistics"]["unigram_entropy"] for row in saved["ranking"]} == {
        saved["ranking"][0]["statistics"]["unigram_entropy"]
    }


def test_the_same_seed_gives_the_same_figures(capsys):
    one, same, other = (
        document(SMOKE, *FEW, "--images", 70, "--seed", seed, "--workers", workers, capsys=capsys)
        for seed, workers in ((0, 1), (0, 2), (1, 1))
    )
    assert one == same != other


def test_both_ngrams_side_by_side(capsys):
    found = document(SMOKE, *FEW, "--images", 40, "--ngram", 2, "--ngram", 1, capsys=capsys)
    assert found["ngram"] == [2, 1]
    first = found["ranking"][0]["ordering"]
    assert found["by_ngram"]["2"][first]["bytes"] == found["ranking"][0]["bytes"]
    assert found["by_ngram"]["1"][first]["bytes"] < found["by_ngram"]["2"][first]["bytes"]
    assert found["raw_bytes"] == 15 * 2


def test_distances_are_columns_everywhere(tmp_path, capsys):
    asked = (SMOKE, *FEW, "--images", 40, "--distance", "4,2", "--distance", 4)
    file = tmp_path / "ranking.json"
    code, printed, _ = prior(*asked, "--write", file, "--out", tmp_path / "out", capsys=capsys)
    assert code == 0
    assert "I I@2 I@4 TV" in " ".join(printed.split())
    assert "I@4: bits that codes 4 slots apart share" in printed
    found = json.loads(file.read_text())
    assert found["ranking"] == document(*asked, capsys=capsys)["ranking"]
    rows = {row["ordering"]: row["statistics"] for row in found["ranking"]}
    assert rows["row_major"]["mutual_information_4"] > rows["row_major"]["mutual_information_2"]  # one row below
    assert len({*rows["row_major"]}) == 9


def test_a_folder_of_pictures(folder, capsys):
    found = document("--data", folder, "--patch", 4, *FEW, capsys=capsys)
    assert (found["images"], found["grid"], found["skipped"]) == (12, [4, 6], 0)
    assert found["data"] == str(folder)
    rows = {row["ordering"]: row["statistics"] for row in found["ranking"]}
    assert rows["row_major"]["total_variation"] < rows["column_major"]["total_variation"]
    assert rows["row_major"]["bigram_entropy"] < rows["column_major"]["bigram_entropy"]
    smaller = document("--data", folder, "--patch", 4, "--image-size", "8x12", *FEW, capsys=capsys)
    assert smaller["grid"] == [2, 3]


def test_colours_are_read_as_colours(tmp_path, capsys):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 255
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(pixels).convert("L").save(tmp_path / "c.png")  # one grey among colours is converted
    found = document("--data", tmp_path, "--patch", 4, *FEW, capsys=capsys)
    assert found["images"] == 3


def test_an_unreadable_picture_is_counted_or_the_end(folder, capsys):
    (folder / "class0" / "broken.png").write_bytes(b"\x89PNG no more")
    code, printed, _ = prior("--data", folder, "--patch", 4, *FEW, capsys=capsys)
    assert code == 0
    assert "1 image could not be read and is left out" in printed
    assert document("--data", folder, "--patch", 4, *FEW, capsys=capsys)["skipped"] == 1
    code, _, err = prior("--data", folder, "--patch", 4, *FEW, "--unreadable", "stop", capsys=capsys)
    assert code == 1
    assert "broken.png cannot be read" in err


def test_a_recipe_s_unreadable_image_is_left_out(monkeypatch, capsys):
    from reorder_digits.digits import MemorySplit

    from reorder_core import RunError

    load = MemorySplit.load

    def broken(self, indices, epoch):
        if 3 in list(indices):
            raise RunError("the image three cannot be read")
        return load(self, indices, epoch)

    monkeypatch.setattr(MemorySplit, "load", broken)
    arguments = (SMOKE, *FEW, "-o", "data.validation=1780", "-o", "training.batch_size=8", "--split", "train")
    found = document(*arguments, capsys=capsys)
    assert (found["images"], found["skipped"]) == (16, 1)
    code, _, err = prior(*arguments, "--unreadable", "stop", capsys=capsys)
    assert (code, err) == (1, "the image three cannot be read\n")


def test_sizes_must_agree(folder, capsys):
    Image.new("L", (8, 8)).save(folder / "class1" / "small.png")
    code, _, err = prior("--data", folder, "--patch", 4, *FEW, capsys=capsys)
    assert code == 2
    assert "small.png has 8x8 pixels and others have 16x24: pass --image-size" in err
    assert document("--data", folder, "--patch", 4, "--image-size", 16, *FEW, capsys=capsys)["images"] == 13


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to measure: a recipe, or a folder of images"),
        ([SMOKE, "--data", "{folder}"], "name what to measure"),
        (["--data", "{folder}"], "--data needs --patch"),
        (["--data", "{folder}", "--patch", "4", "-o", "seed=1"], "-o changes a recipe"),
        ([SMOKE, "--patch", "4"], "--patch and --image-size go with --data"),
        (["--data", "{folder}", "--patch", "5"], "16x24 pixels is not divisible by patches of 5"),
        (["--data", "{folder}", "--patch", "4", "--image-size", "0"], "--image-size 0: write pixels"),
        (["--data", "{folder}/none", "--patch", "4"], "there is no folder"),
        (["--data", "{empty}", "--patch", "4"], "holds no image"),
        ([SMOKE, "--orderings", "hilbrt"], "did you mean 'hilbert'"),
        ([SMOKE, "--orderings", "{{name: spiral, inwrd: 1}}"], "inwrd"),
        ([SMOKE, "--tokenizer", "unifrom"], "did you mean 'uniform'"),
        ([SMOKE, "--tokenizer", "{{name: uniform, levels: none}}"], "levels"),
        ([SMOKE, "--compressor", "lzmaa"], "did you mean 'lzma'"),
        ([SMOKE, "--write", "{folder}/none/x.json"], "there is no folder"),
        (["nowhere.yaml"], "nowhere.yaml: there is no such file"),
        ([SMOKE, "--images", "0"], "Invalid value for '--images'"),
        ([SMOKE, "--distance", "0"], "--distance 0: write slots as whole numbers from 1 on"),
        ([SMOKE, "--distance", "2,x"], "--distance x: write slots"),
        ([SMOKE, "--distance", "3", "--distance", "2,16"], "--distance 16: the codes of a 4x4 grid lie at most 15"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"folder": folder, "empty": tmp_path / "empty"}
    code, out, err = prior(*(str(argument).format(**places) for argument in arguments), capsys=capsys)
    assert code == 2
    assert said in err
    assert out == ""


def test_a_tokenizer_that_learns_is_fitted_to_the_sample(capsys):
    found = document(SMOKE, *FEW, "--images", 200, "--tokenizer", "{name: kmeans, codes: 16, epochs: 1}", capsys=capsys)
    assert found["tokenizer"]["codes"] == 16
    assert 1 < found["ranking"][0]["statistics"]["unigram_entropy"] <= 4
    code, _, err = prior(SMOKE, *FEW, "--images", 2, "--tokenizer", "kmeans", capsys=capsys)
    assert code == 2
    assert "codes" in err


def test_codes_of_a_file_are_found_by_the_images_numbers(tmp_path, capsys):
    """The sample takes images 0 … 1436 in part: their codes come by their own numbers."""
    codes_nN = np.random.default_rng(0).integers(0, 8, size=(1437, 16))
    np.save(tmp_path / "codes.npy", codes_nN)
    given = json.dumps({"name": "codes", "path": str(tmp_path / "codes.npy"), "codes": 8})
    found = document(SMOKE, *FEW, "--images", 300, "--tokenizer", given, capsys=capsys)
    drawn = np.sort(np.random.default_rng(0).choice(1437, size=300, replace=False))
    share = np.bincount(codes_nN[drawn].ravel()) / (300 * 16)
    assert found["ranking"][0]["statistics"]["unigram_entropy"] == pytest.approx(-(share * np.log2(share)).sum())


def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("reorder_prior.measure._finish", interrupted)
    out, file = tmp_path / "out", tmp_path / "x.json"
    code, printed, err = prior(SMOKE, *FEW, "--out", out, "--write", file, capsys=capsys)
    assert (code, printed.strip()) == (130, "")
    assert err.endswith("stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_small_grids_are_told_to_compress_together(capsys):
    code, printed, _ = prior(SMOKE, *FEW, "--images", 40, capsys=capsys)
    assert code == 0
    assert "every order compresses equally" in printed
    assert "try --together 64" in printed


LAUNCHED = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(capsys):
    """The tokenizer is learned by one of them: its codes are the same as where one process does it all."""
    learned = ["--tokenizer", "{name: kmeans, codes: 16, epochs: 1}", "--distance", "2"]
    arguments = [str(SMOKE), *FEW, *learned, "--images", "300", "--together", "16"]
    alone = document(*arguments, capsys=capsys)
    shared = [*LAUNCHED, "-m", "reorder_core", "prior", *arguments, "--json"]
    done = subprocess.run(shared, capture_output=True, text=True, timeout=170, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    for one, other in zip(together.pop("ranking"), alone.pop("ranking"), strict=True):
        assert one.pop("statistics") == pytest.approx(other.pop("statistics"))
        assert one == other
    assert together == alone


BETWEEN_TWO = """
import numpy as np
import pytest
from reorder_prior.shards import agree, close_share, every, fit_once, open_share, summed
from reorder_prior.tally import SUMS, Tally

from reorder_core import RunError, UsageError

share = open_share()
assert share.processes == 2


class Learns:
    fitted, learned = False, None

    def fit(self):
        assert share.process == 0, "only the first one learns"
        self.fitted, self.learned = True, "by the first"

    def state_dict(self):
        return {"learned": self.learned}

    def load_state_dict(self, state):
        self.fitted, self.learned = True, state["learned"]


class KeepsIt:
    fitted = False

    def fit(self):
        self.fitted, self.learned = True, share.process


made, own = Learns(), KeepsIt()
for each in (made, own):
    fit_once(share, each, each.fit)
assert made.fitted and made.learned == "by the first"
agree(share, lambda: made.learned.encode(), "never said")
with pytest.raises(RunError, match="train it once"):
    agree(share, lambda: bytes([own.learned]), "train it once")


def broken():
    if share.process == 1:
        raise UsageError("the second one cannot")
    return 3


with pytest.raises(UsageError, match="the second one cannot"):
    every(share, broken)


def part(process, codes):
    tally = Tally(2, 1, 1, codes, distances=(1, 2))
    codes_BN = np.random.default_rng(process).integers(0, codes, (40, 9))
    tally.add(process, np.ones(40, int), np.full((40, 1), 9), np.full((2, 40, 1), 5 + process), np.ones((2, 1)) / 3)
    tally.code_K += np.bincount(codes_BN.ravel(), minlength=codes)
    for pairs_E in tally.pairs_OE:
        for pairs in pairs_E:
            pairs.add(codes_BN)
    return tally


for codes in (16, 2000):  # counters for all pairs, and the pairs that came up
    total, parts = summed(share, lambda: part(share.process, codes)), [part(process, codes) for process in (0, 1)]
    for name in SUMS:
        wanted = getattr(parts[0], name) + getattr(parts[1], name)
        np.testing.assert_array_equal(getattr(total, name), wanted)
        assert type(getattr(total, name)) is type(wanted)
    for order in (0, 1):
        for number in (0, 1):
            wanted = parts[0].pairs_OE[order][number].merge(parts[1].pairs_OE[order][number])
            found = total.pairs_OE[order][number]
            np.testing.assert_array_equal(found.count_P, wanted.count_P)
            assert found.mutual_information() == wanted.mutual_information()
close_share(share)
print("both agree")
"""


@pytest.mark.slow
def test_what_two_processes_say_to_each_other(tmp_path):
    script = tmp_path / "between_two.py"
    script.write_text(BETWEEN_TWO)
    done = subprocess.run([*LAUNCHED, str(script)], capture_output=True, text=True, timeout=170, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("both agree") == 2


# --- the ordering


def fitted(settings, images=None, grid="4x4"):
    context = context_of(grid)
    ordering = Catalogue.load().build(ComponentRef("ordering", "compressibility", settings), context)
    if images is None:
        images = np.random.default_rng(0).normal(size=(20, 1, 16, 16)).astype(np.float32)
    ordering.fit(images, Grid.parse(grid), context.generator)
    return ordering


def test_compressibility_is_an_ordering():
    check_ordering("compressibility", on=[Grid(1, 1), Grid(1, 4), Grid(3, 5), Grid(4, 4), Grid(3, 4, 2)])


def test_winner_and_loser_are_the_ends_of_the_ranking():
    rng = np.random.default_rng(0)
    rows = np.repeat(np.repeat(rng.normal(size=(64, 1, 8, 1)), 4, axis=2), 32, axis=3).astype(np.float32)
    candidates = {"orderings": ["row_major", "column_major"]}
    best, worst = (fitted({**candidates, "pick": pick}, rows, "8x8") for pick in ("winner", "loser"))
    assert {best.chosen, worst.chosen} == {"row_major", "column_major"}
    assert best.chosen == "column_major"  # a period is cheaper than runs
    np.testing.assert_array_equal(best.permutation(Grid(8, 8)), np.arange(64).reshape(8, 8).T.ravel())
    with pytest.raises(UsageError, match="before it was fitted"):
        best.permutation(Grid(2, 2))


def test_the_generator_of_the_run_is_left_alone():
    import torch

    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    ordering = Catalogue.load().build(ComponentRef("ordering", "compressibility"), context_of("4x4"))
    ordering.fit(np.zeros((2, 1, 16, 16), np.float32), Grid(4, 4), generator)
    assert torch.equal(before, generator.get_state())


def test_a_saved_ranking_takes_the_place_of_measuring(tmp_path, capsys):
    file = tmp_path / "ranking.json"
    found = document(
        SMOKE, "--images", 64, "--orderings", "row_major,{name: spiral, inward: false}", "--write", file, capsys=capsys
    )
    ordering = fitted({"ranking": str(file)})
    assert ordering.chosen == found["ranking"][0]["ordering"]
    np.testing.assert_array_equal(
        ordering.permutation(Grid(4, 4)), json.loads(file.read_text())["orders"][ordering.chosen]
    )
    loser = fitted({"ranking": str(file), "pick": "loser"})
    assert loser.chosen == found["ranking"][-1]["ordering"] != ordering.chosen
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({"grid": [4, 4], "ranking": [{"ordering": "hilbert"}]}))
    assert fitted({"ranking": str(bare)}).chosen == "hilbert"


@pytest.mark.parametrize(
    ("prior_settings", "said"),
    [
        ({"orderings": []}, "an empty list leaves no order to choose"),
        ({"orderings": ["compressibility"]}, "cannot be one of its own candidates"),
        ({"tokenizer": "unifrom"}, "did you mean 'uniform'"),
        ({"ranking": "none.json"}, "none.json holds no ranking"),
        ({"ranking": "{other}"}, "ranks orders of a 8x8 grid, not of 4x4"),
        ({"ranking": "{no}"}, "holds no ranking"),
        ({"pick": "best"}, "must be winner or loser"),
    ],
)
def test_wrong_settings_are_found_by_check(prior_settings, said, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"grid": [8, 8], "ranking": [{"ordering": "snake"}]}))
    (tmp_path / "no.json").write_text("[]")
    places = {"other": tmp_path / "other.json", "no": tmp_path / "no.json"}
    given = {key: value.format(**places) if isinstance(value, str) else value for key, value in prior_settings.items()}
    with pytest.raises(UsageError, match=said):
        load_recipe(SMOKE, [f"policy.prior={json.dumps({'name': 'compressibility', **given})}"])


def test_a_policy_starts_from_it(tmp_path, capsys):
    """No line of the core knows of it: `policy.prior` takes any ordering."""
    short = [
        "training.epochs=1",
        "training.steps_per_epoch=2",
        "policy.learning_rate=1e-9",
        "training.phases={warm_up: 0, learn: 1}",
        "controls=[]",
    ]
    changes = [
        *short,
        "policy.prior={name: compressibility, together: 16, orderings: [row_major, column_major, hilbert]}",
    ]
    overrides = [part for each in changes for part in ("-o", each)]
    assert main(["run", str(SMOKE), "--out", str(tmp_path), "--device", "cpu", *overrides]) == 0
    printed = capsys.readouterr().out
    (path,) = tmp_path.rglob("order.json")
    order = json.loads(path.read_text())
    assert order["provenance"]["initial_order"].startswith("compressibility")
    assert "is the most compressible order, of 3, over 1024 training images" in printed
    chosen = next(line for line in printed.splitlines() if "compressible order" in line).split()[1]
    assert chosen in ("row_major", "column_major", "hilbert")
    named = Catalogue.load().build(ComponentRef("ordering", chosen), context_of("4x4")).permutation(Grid(4, 4))
    np.testing.assert_array_equal(order["permutation"], named)
