"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="backbone",
            name="hierarchical",
            target="reorder_hierarchical.backbone:HierarchicalBackbone",
            settings="reorder_hierarchical.settings:HierarchicalSettings",
            summary="stages of any mixer that merge neighbours in the sequence or on the grid; features of every level",
            paper="Liu et al., Swin Transformer, ICCV 2021 (arXiv 2103.14030), section 3.1",
        ),
    )
