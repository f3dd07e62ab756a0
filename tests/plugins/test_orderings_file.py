"""An order saved as a file: what is read, and the one sentence for each thing that can be wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reorder_orderings.saved import read_order
from reorder_orderings.settings import FileSettings

from reorder_core import ComponentRef, Context, DataFacts, Grid, RunFacts, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_ordering, grids, permutations

GRID = Grid(2, 3)
ORDER = [5, 3, 1, 0, 2, 4]


def saved(folder: Path, content: Any) -> Path:
    path = folder / "order.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=grids(6, max_frames=3).flatmap(lambda grid: st.tuples(st.just(grid), permutations(grid.size))))
def test_what_was_saved_is_read_back(tmp_path, case):
    grid, perm = case
    sides = {"rows": grid.rows, "columns": grid.columns, "frames": grid.frames}
    for written in (str(grid), sides, list(sides.values())):
        path = saved(tmp_path, {"grid": written, "permutation": perm.tolist(), "provenance": "a run"})
        assert (read_order(path, grid) == perm).all()
    np.save(tmp_path / "order.npy", perm)
    assert (read_order(tmp_path / "order.npy", grid) == perm).all()


def test_the_component(tmp_path):
    path = saved(tmp_path, {"grid": "2x3", "permutation": ORDER})
    check_ordering("file", {"path": str(path)}, on=[GRID])
    ordering = Catalogue.load().build(ComponentRef("ordering", "file", {"path": str(path)}), Context(GRID))
    assert ordering.permutation(GRID).tolist() == ORDER


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("not json", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ([1, 2], "holds no order: it must be an object with the keys 'permutation' and 'grid'"),
        ({"grid": "2x3"}, "holds no order"),
        ({"permutation": ORDER}, "holds no order"),
        ({"grid": "3x2", "permutation": ORDER}, "holds an order for a grid of 3x2, not 2x3"),
        ({"grid": "2x2", "permutation": [0, 1, 2, 3]}, "holds an order for a grid of 2x2, not 2x3"),
        ({"grid": "2 by 3", "permutation": ORDER}, "has no usable grid"),
        ({"grid": 6, "permutation": ORDER}, "has no usable grid"),
        ({"grid": {"height": 2}, "permutation": ORDER}, "has no usable grid"),
        ({"grid": "2x3", "permutation": [0, 1, 2, 3, 4, 4]}, "repeats patch 4 and leaves out patch 5"),
        ({"grid": "2x3", "permutation": [0, 1, 2]}, "has 3 patches where 6 are needed"),
        ({"grid": "2x3", "permutation": [0, 1, 2, 3, 4, 6]}, "names patch 6"),
        ({"grid": "2x3", "permutation": [0, 1, 2, 3, 4, 5.5]}, "something else than whole numbers"),
        ({"grid": "2x3", "permutation": [ORDER, ORDER]}, "holds 2 orders"),
        ({"grid": "2x3", "permutation": "row_major"}, "is empty"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_json_file(tmp_path, content, advice):
    path = saved(tmp_path, content)
    with pytest.raises(UsageError) as error:
        read_order(path, GRID)
    assert advice in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.arange(5), "has 5 patches where 6 are needed"),
        (np.array([0, 1, 2, 3, 3, 5]), "repeats patch 3 and leaves out patch 4"),
        (np.arange(6.0), "something else than whole numbers"),
        (np.array([{}], dtype=object), "cannot be read as a NumPy array"),
        (None, "cannot be read as a NumPy array"),
    ],
    ids=["short", "repeated", "floats", "objects", "no array"],
)
def test_what_is_wrong_with_an_array(tmp_path, array, advice):
    path = tmp_path / "order.npy"
    if array is None:
        path.write_bytes(b"\x93NUMPY?")
    else:
        np.save(path, array)
    with pytest.raises(UsageError) as error:
        read_order(path, GRID)
    assert advice in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"there is no order file .*nowhere\.json"):
        read_order(tmp_path / "nowhere.json", GRID)


def test_a_recipe_learns_of_it_before_anything_starts(tmp_path):
    facts = RunFacts(DataFacts(8, 12, 1), GRID, 4, 1, "learned")
    good = FileSettings(path=saved(tmp_path, {"grid": "2x3", "permutation": ORDER}))
    assert list(good.problems(facts)) == []
    (problem,) = FileSettings(path=tmp_path / "nowhere.json").problems(facts)
    assert problem.key == "path"
    assert "there is no order file" in problem.message
