"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="policy",
            name="curriculum",
            target="reorder_curriculum.curriculum:Curriculum",
            settings="reorder_curriculum.settings:CurriculumSettings",
            summary="moves from random, named or learned orders to another one while the model trains",
            paper="Yu et al., Randomized Autoregressive Visual Generation, arXiv 2411.00776 (random to raster)",
        ),
    )
