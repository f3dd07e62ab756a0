"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="backbone",
            name="mamba",
            target="reorder_mamba.backbone:MambaBackbone",
            settings="reorder_mamba.settings:MambaSettings",
            summary="Mamba-1 selective state space, causal or bidirectional; reads the patches one after the other",
            paper="Gu & Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023 (arXiv 2312.00752)",
        ),
    )
