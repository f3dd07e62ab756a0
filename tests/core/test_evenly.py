"""A few images stand for all: data sets lie on disk class by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reorder_core.interfaces.dataset import evenly
from reorder_core.opened import open_target

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"


@given(st.integers(1, 500), st.integers(1, 600))
def test_numbers_are_spread(count: int, wanted: int) -> None:
    found = [*evenly(count, wanted)]
    assert len(found) == min(count, wanted)
    assert found == sorted(set(found))
    assert 0 <= found[0] <= found[-1] < count
    assert np.ptp(np.diff([*found, count])) <= 1 if len(found) > 1 else True


@pytest.fixture
def sorted_classes(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for number, name in enumerate(("black", "grey", "white")):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for each in range(40):
                Image.new("L", (8, 8), 100 * number + each).save(place / f"{each:02}.png")
    return tmp_path


def test_some_images_of_a_folder_are_of_every_class(sorted_classes: Path) -> None:
    data = f"data={{name: image_folder, root: {sorted_classes}, resize: 8, size: 8}}"
    opened = open_target(SMOKE, [data, "patch.size=4", "ordering.name=greedy_similarity", "controls=[]", "policy=null"])
    (batch,) = opened.batches(opened.dataset.validation, 30)
    assert np.bincount(batch.target.tolist()).tolist() == [10, 10, 10]
