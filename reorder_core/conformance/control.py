"""The contract of a control."""

from __future__ import annotations

import numpy as np

from reorder_core.conformance.building import (
    Buildable,
    Given,
    build,
    context,
    leaves_global_random_state,
    require,
)
from reorder_core.grid import Grid
from reorder_core.interfaces.control import Control


def check_control(component: Buildable, settings: Given = None, *, grid: Grid | None = None) -> None:
    """A `Control` whose order, where it has one, is a bijection, int64 [N], the same at every call.

    It changes something: an order or an override. It leaves the learned order and global random states alone, and
    one that needs no finished run answers without a learned order.
    """
    grid = grid or Grid(3, 5)
    draw = np.random.default_rng(0)
    prior_N, learned_N = (draw.permutation(grid.size).astype(np.int64) for _ in range(2))
    kept_prior_N = prior_N.copy()
    where = context(grid, prior_N=prior_N)
    control = build("control", component, settings, where)
    require(isinstance(control, Control), f"a control's target must return a Control, not {type(control).__name__}")
    require(control.name and "/" not in control.name, "a control's name is the name of its folder")
    require(control.needs in ("nothing", "finished"), f"needs must be 'nothing' or 'finished', not {control.needs!r}")
    require(all(isinstance(key, str) for key in control.overrides), "the keys of overrides are keys of a recipe")
    require(control.order_from or control.overrides, "a control must change the order or override something")
    if control.order_from is None:
        return
    known_N = learned_N.copy() if control.needs == "finished" else None
    with leaves_global_random_state("order_from"):
        order_N, again_N = (control.order_from(where, known_N) for _ in range(2))
    require(order_N.dtype == np.int64, f"the order of a control must be int64, not {order_N.dtype}")
    require(
        np.array_equal(np.sort(order_N), np.arange(grid.size)),
        f"the order of a control must name every patch once, not {order_N.tolist()}",
    )
    require(np.array_equal(order_N, again_N), "the order of a control must be the same at every call")
    order_N[:] = order_N[::-1].copy()
    for given_N, kept_N in ((known_N, learned_N), (where.prior_N, kept_prior_N)):
        require(
            given_N is None or np.array_equal(given_N, kept_N),
            "changing a control's order must not change the order that it was made from: copy it",
        )
