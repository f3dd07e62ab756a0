"""The contract of a mixer: that of a backbone of two blocks around it."""

from __future__ import annotations

from typing import Any

from reorder_core.conformance.backbone import check_backbone
from reorder_core.conformance.building import Buildable, Given, build, context, require
from reorder_core.grid import Grid
from reorder_core.interfaces.context import Context
from reorder_core.sequence import SequenceBackbone
from reorder_core.sequence_settings import SequenceSettings


def check_mixer(
    component: Buildable, settings: Given = None, *, grid: Grid | None = None, tolerance: float = 1e-5
) -> None:
    """Check a mixer inside a backbone of two blocks without MLP, read at its end where it is causal, else by its mean.

    Everything that `check_backbone` asks for: shapes, finite values, gradients, groups, honest declarations.
    """
    alone: Any = build("mixer", component, settings, context(grid or Grid(4, 4), width=32))
    for member in ("plan", "forward"):
        require(callable(getattr(alone, member, None)), f"a mixer needs {member}()")
    # two ways of reading, as a mixer that is honest about the mean may hide what a class token sees
    for readout in ("last",) if alone.attention == "causal" else ("mean", "class"):
        chosen = SequenceSettings(width=32, depth=2, mlp_ratio=0, readout=readout)  # type: ignore[arg-type]

        def backbone(given: Any, where: Context, chosen: SequenceSettings = chosen) -> SequenceBackbone:
            return SequenceBackbone(chosen, where, lambda inner: build("mixer", component, settings, inner))

        check_backbone(backbone, grid=grid, tolerance=tolerance)
