"""A recipe that gives several orders, to a backbone that reads them at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.errors import UsageError
from reorder_core.opened import open_recipe, open_run
from reorder_core.recipe import RecipeError, load_recipe
from reorder_core.recipe_schema import recipe_schema

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
CROSS = "backbone={name: mamba, width: 16, depth: 1, state: 4, direction: cross, orders: 3, readout: mean}"
LIST = "ordering=[row_major, {name: reverse, of: row_major}, column_major]"
SHORT = ["policy=null", "controls=[]", "training.epochs=1", "training.steps_per_epoch=2"]


def test_the_list_is_read_resolved_and_read_again():
    recipe = load_recipe(SMOKE, [CROSS, LIST, *SHORT])
    assert [recipe.ordering.name, *(part.name for part in recipe.further_orderings)] == [
        "row_major",
        "reverse",
        "column_major",
    ]
    again = recipe.with_overrides([])
    assert again.resolved() == recipe.resolved()
    assert again.fingerprint() == recipe.fingerprint()
    other = recipe.with_overrides(["ordering.2.name=hilbert"])
    assert other.fingerprint() != recipe.fingerprint()


def test_the_model_reads_every_order_of_the_list():
    with torch.no_grad():
        images_BCHW = torch.randn(2, 1, 8, 8)
        summaries = []
        for last in ("column_major", "hilbert"):
            opened = open_recipe(load_recipe(SMOKE, [CROSS, LIST, *SHORT, f"ordering.2.name={last}"]), "cpu")
            from reorder_core.layout import Layout

            layout = Layout.fixed(opened.grid, torch.from_numpy(opened.order_N))
            summaries.append(opened.model(images_BCHW, layout).summary_BD)
    assert not torch.allclose(*summaries)


def test_a_run_writes_the_further_orders_down(tmp_path):
    arguments = [part for each in (CROSS, LIST, *SHORT) for part in ("-o", each)]
    assert main(["run", str(SMOKE), "--out", str(tmp_path), "--device", "cpu", *arguments]) == 0
    (written,) = tmp_path.glob("smoke/*/order.json")
    found = json.loads(written.read_text())
    assert found["permutation"] == list(range(16))
    assert found["provenance"]["further_orders"][0] == list(range(15, -1, -1))
    # what is opened again reads what was written down, not what the recipe would give today
    found["provenance"]["further_orders"][0] = [1, 0, *range(2, 16)]
    written.write_text(json.dumps(found))
    opened = open_run(written.parent, "cpu")
    assert opened.model.further_RN[0].tolist() == [1, 0, *range(2, 16)]
    found["provenance"]["further_orders"] = found["provenance"]["further_orders"][:1]
    written.write_text(json.dumps(found))
    with pytest.raises(UsageError, match="1 further orders, and the model reads 2"):
        open_run(written.parent, "cpu")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([CROSS], "ordering: this backbone reads 3 orders at once, and the recipe gives 1: write a list of 3"),
        ([CROSS, "ordering=[row_major, hilbert]"], "and the recipe gives 2: write a list of 3"),
        (
            ["ordering=[row_major, hilbert]"],
            "ordering: this backbone reads 1 order, and the recipe gives 2: name one ordering",
        ),
    ],
)
def test_a_wrong_number_of_orders_is_found_by_check(overrides, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(SMOKE, [*overrides, *SHORT])


def test_a_hierarchy_is_asked_when_it_is_built():
    cross = "{name: mamba, direction: cross, orders: 2, state: 4}"
    around = f"backbone={{name: hierarchical, widths: [16, 16], depths: [1, 1], mixer: {cross}}}"
    assert open_recipe(load_recipe(SMOKE, [around, "ordering=[row_major, hilbert]", *SHORT]), "cpu")
    with pytest.raises(UsageError, match="reads 2 orders at once, and the recipe gives 1: write ordering: as a list"):
        open_recipe(load_recipe(SMOKE, [around, *SHORT]), "cpu")


def test_a_wrong_name_in_the_list_is_found_by_check():
    with pytest.raises(RecipeError, match=r"ordering\.1.*did you mean 'hilbert'"):
        load_recipe(SMOKE, ["ordering=[row_major, hilbrt]"])
    with pytest.raises(RecipeError, match="ordering"):
        load_recipe(SMOKE, ["ordering=[]"])


def test_the_schema_takes_a_list():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(recipe_schema(Catalogue.load()))
    resolved = load_recipe(SMOKE, [CROSS, LIST, *SHORT]).resolved()
    assert list(validator.iter_errors(resolved)) == []
    assert list(validator.iter_errors({**resolved, "ordering": ["row_major", "hilbrt"]}))
