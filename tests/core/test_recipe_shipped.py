"""Every shipped recipe passes `reorder check`, fits the schema for editors, and says what each key is for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.recipe import load_recipe
from reorder_core.recipe_schema import recipe_schema
from reorder_core.recipe_yaml import read_yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    schema = recipe_schema(Catalogue.load())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_there_are_the_recipes_that_the_documentation_names():
    names = {path.stem for path in RECIPES}
    assert {"smoke", "mamba_reinforce", "digits"} <= names
    paper = {path.stem for path in RECIPES if path.parent.name == "paper"}
    assert paper == {
        f"{m}_{d}_{k}"
        for m in ("vit", "mamba", "txl", "longformer")
        for d in ("imagenet", "fmow")
        for k in ("fixed", "reorder")
    }


@each_recipe
def test_a_recipe_passes_check(path, capsys):
    assert main(["check", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
    recipe = load_recipe(path)
    assert recipe.name == path.stem


@each_recipe
def test_every_line_of_a_recipe_is_commented(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    bare = [line for line in lines if line and not line.startswith("#") and "# " not in line]
    assert all(line == "training:" for line in bare), bare


@each_recipe
def test_a_recipe_fits_the_schema(path, validator):
    assert list(validator.iter_errors(read_yaml(path.read_text()).value)) == []
    assert list(validator.iter_errors(load_recipe(path).resolved())) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sed", 1),
        ("ordering", "hilbertt"),
        ("ordering", {"name": "spiral", "inwards": True}),
        ("ordering", {"name": "reverse", "of": {"name": "spiral", "inwards": True}}),
        ("ordering", "file"),
        ("policy", {"name": "reinforce", "orders": 0}),
        ("policy", {"orders": 2}),
        ("patch", {"size": -2}),
        ("controls", ["nothing"]),
    ],
)
def test_the_schema_refuses(validator, key, value):
    good = read_yaml((ROOT / "recipes" / "smoke.yaml").read_text()).value
    assert list(validator.iter_errors({**good, key: value}))


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_on_embedded_data_are_built(path, capsys):
    small = ["-o", "data.train=256", "-o", "data.validation=64"] if "cluttered" in path.read_text() else []
    assert main(["run", str(path), "--dry-run", "--device", "cpu", "-o", "controls=[]", *small]) == 0
    capsys.readouterr()


def test_the_paper_s_numbers():
    for path in RECIPES:
        if path.parent.name == "paper":
            recipe = load_recipe(path)
            training = recipe.training
            assert recipe.facts.grid.size == 196
            assert training.epochs == 100
            assert (
                training.batch_size
                == {
                    ("vit", 1000): 896,
                    ("vit", 62): 448,
                    ("arm", 1000): 640,
                    ("arm", 62): 320,
                    ("transformer_xl", 1000): 640,
                    ("transformer_xl", 62): 320,
                    ("longformer", 1000): 576,
                    ("longformer", 62): 288,
                }[recipe.backbone.name, recipe.facts.data.classes]
            )
            assert (training.optimizer.lr, training.optimizer.weight_decay, training.optimizer.clip) == (1e-4, 0.03, 5)
            assert (training.schedule.warm_up, training.schedule.final, training.schedule.shape) == (5, 0.01, "cosine")
            assert (recipe.policy is None) == path.stem.endswith("fixed")
            if recipe.policy is not None:
                assert (training.phases.warm_up, training.phases.learn) == (15, 30)
                rate = 1e-4 if recipe.backbone.name == "transformer_xl" else 1e-5
                assert (recipe.policy.settings.faithful, recipe.policy.settings.learning_rate) == ("paper", rate)
            assert (recipe.backbone.settings.width, recipe.backbone.settings.depth) == (768, 12)


def test_a_missing_data_folder_is_found_before_the_run_starts(tmp_path, capsys):
    path = ROOT / "recipes" / "paper" / "vit_fmow_fixed.yaml"
    code = main(["run", str(path), "--device", "cpu", "--out", str(tmp_path), "-o", f"data.root={tmp_path}/none"])
    assert code == 2
    assert f"there is no folder {tmp_path}/none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_check_needs_neither_torch_nor_numpy():
    program = (
        "import sys; from reorder_core.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'timm', 'torchvision', 'scipy', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    for arguments in (["check", *map(str, RECIPES)], ["schema"]):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_check_names_all_errors_of_all_files(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("name: x\nsed: 1\n")
    good = str(ROOT / "recipes" / "smoke.yaml")
    assert main(["check", str(tmp_path / "a.yaml"), good, str(tmp_path / "b.yaml")]) == 2
    captured = capsys.readouterr()
    assert "smoke.yaml: digits: 1,437 images of 8x8x1; 4x4 = 16 patches" in captured.out
    assert [line.split(": ")[0] for line in captured.err.splitlines() if "sed" in line] == [
        f"{tmp_path}/a.yaml:2",
        f"{tmp_path}/b.yaml:2",
    ]


def test_check_takes_overrides_and_speaks_json(capsys):
    good = str(ROOT / "recipes" / "smoke.yaml")
    assert main(["check", good, "-o", "patch.size=1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["ok"]
    assert row["grid"] == [8, 8]
    assert row["recipe"]["patch"] == {"size": 1}
    assert main(["check", good, "-o", "patch.size=3", "--json"]) == 2
    (row,) = json.loads(capsys.readouterr().out)
    assert row["errors"][0].startswith("-o patch.size=3: patch.size: an image of 8x8 pixels")


def test_schema_is_written_to_a_file(tmp_path, capsys):
    assert main(["schema", "--out", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["title"] == "a recipe of reorder"
    assert main(["schema", "--out", str(tmp_path / "none" / "s.json")]) == 2
    assert "choose another --out" in capsys.readouterr().err
