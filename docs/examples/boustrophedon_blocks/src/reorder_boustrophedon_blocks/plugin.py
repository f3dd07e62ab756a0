"""What this plugin promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="ordering",
            name="boustrophedon_blocks",
            target="reorder_boustrophedon_blocks.ordering:BoustrophedonBlocks",
            settings="reorder_boustrophedon_blocks.settings:BlocksSettings",
            summary="blocks of patches one after the other, to and fro",
            paper="after the local windows of Huang et al., LocalMamba, 2024 (arXiv 2403.09338)",
        ),
    )
