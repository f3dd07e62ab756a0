"""`reorder tokenizer train`: from a folder or a recipe to a file, a picture and figures; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reorder_tokenizers.header import read_header
from reorder_tokenizers.picture import sheet
from sklearn.datasets import load_digits

from reorder_core.cli.main import main

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
FEW = ["--kind", "kmeans", "--codes", "8", "--epochs", "2"]


@pytest.fixture
def folder(tmp_path):
    """Sixty digits of 8x8 pixels in nested folders, and a file that is none."""
    root = tmp_path / "digits"
    bunch = load_digits()
    for number in range(60):
        place = root / "nested" / str(bunch.target[number])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((bunch.images[number] * 15).astype(np.uint8)).save(place / f"{number}.png")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_bytes(b"not seen")
    return root


def train(folder, out, *more):
    return main(["tokenizer", "train", "--data", str(folder), "--patch", "4", "--out", str(out), *more])


def trained(capsys, *arguments):
    assert train(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["kmeans", "vqvae"])
def test_of_a_folder(folder, tmp_path, capsys, kind):
    out = tmp_path / "tokens.safetensors"
    small = ["-s", "width=8", "-s", "device=cpu"] if kind == "vqvae" else []
    assert train(folder, out, *FEW, "--kind", kind, *small) == 0
    printed = capsys.readouterr().out
    for word in ("codes used", "of 8", "perplexity", "dB, over 3 images kept aside", "wrote"):
        assert word in printed
    header = read_header(out)
    assert (header.kind, header.patch, header.channels, header.codes) == (kind, 4, 1, 8)
    assert header.settings["epochs"] == 2
    assert 5 < header.figures["psnr"] < 40
    assert (header.figures["images"], header.figures["measured"]) == (57, 3)
    with Image.open(out.with_suffix(".png")) as picture:
        picture.verify()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["digits", "tokens.png", "tokens.safetensors"]


def test_of_a_recipe(tmp_path, capsys):
    out = tmp_path / "tokens.safetensors"
    small = ["-o", "data.validation=40"]
    assert main(["tokenizer", "train", str(SMOKE), *small, *FEW, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["codes"], found["images"], found["measured"]) == ("kmeans", 8, 1757, 40)
    assert found["held_out"] is True
    assert found["used"] == 8
    capsys.readouterr()
    asked = ["--orderings", "row_major,column_major", "--tokenizer", f"{{name: kmeans, path: {out}}}", "--json"]
    assert main(["prior", str(SMOKE), *small, *asked]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"]["path"] == str(out)


def test_a_run_starts_from_a_prior_with_a_trained_tokenizer(tmp_path, capsys):
    """A nested setting arrives with its defaults filled in, which must not count as given beside a path."""
    out = tmp_path / "tokens.safetensors"
    assert main(["tokenizer", "train", str(SMOKE), "--out", str(out), "--kind", "kmeans", "--codes", "8"]) == 0
    prior = f"{{name: compressibility, tokenizer: {{name: kmeans, path: {out}}}, orderings: [row_major, snake]}}"
    changed = ["-o", f"policy.prior={prior}", "-o", "controls=[]", "--dry-run", "--out", str(tmp_path / "runs")]
    assert main(["run", str(SMOKE), *changed]) == 0, capsys.readouterr().err


def test_a_ranking_says_what_the_tokenizer_of_a_file_is(tmp_path, capsys):
    out = tmp_path / "tokens.safetensors"
    assert main(["tokenizer", "train", str(SMOKE), "--out", str(out), "--kind", "kmeans", "--codes", "8"]) == 0
    capsys.readouterr()
    chosen = ["--tokenizer", f"{{name: kmeans, path: {out}}}", "--images", "64", "--orderings", "row_major,snake"]
    assert main(["prior", str(SMOKE), *chosen, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"]["codes"] == 8


def test_a_picture_of_somebody_else_is_not_replaced(folder, tmp_path, capsys):
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert train(folder, tmp_path / "mine.safetensors", *FEW) == 2
    assert "would replace" in capsys.readouterr().err
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_the_same_seed_gives_the_same_file(folder, tmp_path, capsys):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        trained(capsys, folder, tmp_path / f"{name}.safetensors", *FEW, "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes()[-400:] for name in "abc")
    assert a == b != c


def test_fewer_images_are_taken_where_it_is_asked_for(folder, tmp_path, capsys):
    found = trained(capsys, folder, tmp_path / "few.safetensors", *FEW, "--images", "10")
    assert (found["images"], found["measured"], found["held_out"]) == (10, 10, False)


def test_an_unreadable_image_is_skipped_with_a_count_or_stops(folder, tmp_path, capsys):
    (folder / "0.png").write_bytes((folder / "nested" / "0" / "0.png").read_bytes()[:60])
    (folder / "nested" / "1" / "empty.png").write_bytes(b"")
    out = tmp_path / "tokens.safetensors"
    assert trained(capsys, folder, out, *FEW)["skipped"] == 2
    assert train(folder, out, *FEW) == 0
    assert "(2 unreadable, skipped)" in capsys.readouterr().out
    assert train(folder, tmp_path / "none.safetensors", *FEW, "--unreadable", "stop") == 1
    said = capsys.readouterr().err
    assert "cannot be read" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "none.safetensors").exists()


def test_images_of_unequal_size_need_a_size(folder, tmp_path, capsys):
    Image.new("L", (12, 8)).save(folder / "nested" / "0" / "wide.png")
    out = tmp_path / "tokens.safetensors"
    assert train(folder, out, *FEW) == 2
    assert "wide.png has 8x12 pixels and others have 8x8: pass --image-size" in capsys.readouterr().err
    assert trained(capsys, folder, out, *FEW, "--image-size", "12")["images"] == 58
    assert read_header(out).patch == 4


def test_ctrl_c_leaves_nothing_behind(folder, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn.cluster.MiniBatchKMeans.partial_fit", stopped)
    assert train(folder, tmp_path / "tokens.safetensors", *FEW) == 130
    assert capsys.readouterr().err.strip() == "stopped"
    assert [each.name for each in tmp_path.iterdir()] == ["digits"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "name what to learn from: a recipe, or a folder"),
        (["--data", "{data}"], 2, "--data needs --patch"),
        (["--data", "{data}", "{smoke}"], 2, "name what to learn from"),
        (["--data", "{data}", "--patch", "4", "-o", "seed=1"], 2, "-o changes a recipe"),
        (["{smoke}", "--image-size", "8"], 2, "--image-size goes with --data"),
        (["--data", "{data}", "--patch", "4", "--image-size", "x"], 2, "write pixels, as 224 or 224x320"),
        (["--data", "{data}", "--patch", "3"], 2, "not divisible by patches of 3"),
        (["--data", "{data}", "--patch", "4", "--codes", "400"], 2, "57 images have 228 patches, fewer than 400 codes"),
        (["--data", "{data}", "--patch", "4", "-s", "widht=3"], 2, "did you mean 'width'?"),
        (["--data", "{data}", "--patch", "4", "-s", "width"], 2, "write KEY=VALUE"),
        (["--data", "{data}", "--patch", "4", "-s", "path=a"], 2, "a file is not trained again"),
        (["--data", "{data}", "--patch", "4", "--codes", "9", "-s", "codes=8"], 2, "'codes' is given twice"),
        (["--data", "{tmp}/gone", "--patch", "4"], 2, "there is no folder"),
        (["--data", "{tmp}/none", "--patch", "4"], 2, "holds no image (.bmp, .gif"),
        (["--data", "{tmp}/bad", "--patch", "4"], 2, "can be read"),
        (["{tmp}/gone.yaml"], 2, "gone.yaml"),
        (["--data", "{data}", "--patch", "4", "--out", "{tmp}/tokens.pt"], 2, "call it"),
        (["--data", "{data}", "--patch", "4", "--out", "{tmp}/a/b.safetensors"], 2, "there is no folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments, code, said, folder, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    places = {"data": str(folder), "tmp": str(tmp_path), "smoke": str(SMOKE)}
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "tokens.safetensors")]
    given = [argument.format(**places) for argument in arguments]
    assert main(["tokenizer", "train", *given, *out]) == code
    said_there = capsys.readouterr().err
    assert said in said_there
    assert said_there.count("\n") == 1
    assert not list(tmp_path.glob("*.safetensors"))


def test_images_alike_have_a_codebook_that_collapsed(tmp_path, capsys):
    for number in range(30):
        Image.new("L", (8, 8), 99).save(tmp_path / f"{number}.png")
    out = tmp_path / "tokens.safetensors"
    assert train(tmp_path, out, *FEW, "-s", "least_used=0.5") == 1
    assert (
        "the codebook collapsed: only 1 of 8 codes are used (12.5%, at least 50.0% are due)" in capsys.readouterr().err
    )
    assert not out.exists()
    assert train(tmp_path, out, *FEW) == 0
    printed = capsys.readouterr().out
    assert "warning: only 1 of 8 codes are used" in printed
    assert "no error at all" in printed or "dB" in printed


def test_a_sheet_has_lines_between_its_images():
    images_BCHW = np.zeros((3, 1, 2, 4), np.float32)
    found = sheet(images_BCHW, 2)
    assert found.shape == (5, 9, 3)
    assert (found[:, 4] == 1).all()
    assert (found[:2, :4] == 0).all()
    assert (found[3:, 5:] == 1).all()
