"""Before it has learned anything, the best order of every installed policy is the ordering it starts from.

Plugins are asked, not named: each takes part by being installed, if it needs no settings.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from reorder_core import Grid
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import context
from reorder_core.errors import UnsupportedGrid
from reorder_core.settings import ComponentRef

GRIDS = (Grid(4, 6), Grid(9, 9))
PATCH = 2


@cache
def buildable(kind: str) -> tuple[str, ...]:
    """The components of a kind that need no settings."""
    catalogue = Catalogue.load()
    names = []
    for entry in catalogue.entries(kind):
        assert entry.state == "ok", f"{entry.component.name} is {entry.state}"
        wanted = catalogue.settings_class(entry)
        if wanted is None or not any(each.is_required() for each in wanted.model_fields.values()):
            names.append(entry.component.name)
    return tuple(names)


def order_of(name: str, grid: Grid) -> np.ndarray | None:
    """The ordering's permutation, fitted to noise where it learns from images; None where it has none on this grid."""
    where = context(grid, patch=PATCH)
    ordering = where.resolve(ComponentRef("ordering", name))
    try:
        if hasattr(ordering, "fit"):
            shape = (40, 1, grid.rows * PATCH, grid.columns * PATCH)
            ordering.fit(np.random.default_rng(0).random(shape, dtype=np.float32), grid, where.generator)
        return np.asarray(ordering.permutation(grid))
    except UnsupportedGrid:
        return None


@pytest.mark.parametrize("ordering", buildable("ordering"))
@pytest.mark.parametrize("policy", buildable("policy"))
def test_best_is_the_ordering(policy: str, ordering: str) -> None:
    for grid in GRIDS:
        if (prior_N := order_of(ordering, grid)) is not None:
            where = context(grid, patch=PATCH, prior_N=prior_N)
            made = where.resolve(ComponentRef("policy", policy))
            assert torch.as_tensor(made.best()).tolist() == prior_N.tolist()
