"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="backbone",
            name="vit",
            target="reorder_vit.backbone:VitBackbone",
            settings="reorder_vit.settings:VitSettings",
            summary="vision transformer of timm's own blocks: full attention, blind to the order",
            paper="Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929)",
        ),
    )
