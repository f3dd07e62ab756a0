"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

_MAMBA = "Gu & Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023 (arXiv 2312.00752)"
_MAMBA2 = "Dao & Gu, Transformers are SSMs, ICML 2024 (arXiv 2405.21060)"


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="backbone",
            name="mamba",
            target="reorder_mamba.backbone:MambaBackbone",
            settings="reorder_mamba.settings:MambaSettings",
            summary="Mamba-1 selective state space in one or several directions; reads the patches one after the other",
            paper=_MAMBA,
        ),
        Component(
            kind="mixer",
            name="mamba",
            target="reorder_mamba.mixer:Mixer",
            settings="reorder_mamba.settings:MambaMixerSettings",
            summary="one Mamba-1 mixer: causal, bidirectional, four directions, or a cross-scan of several orders",
            paper=_MAMBA,
        ),
        Component(
            kind="backbone",
            name="mamba2",
            target="reorder_mamba.mamba2_backbone:Mamba2Backbone",
            settings="reorder_mamba.mamba2_settings:Mamba2Settings",
            summary="Mamba-2, the state space as masked matrix products in chunks; reads one patch after the other",
            paper=_MAMBA2,
        ),
        Component(
            kind="mixer",
            name="mamba2",
            target="reorder_mamba.mamba2_mixer:Mamba2Mixer",
            settings="reorder_mamba.mamba2_settings:Mamba2MixerSettings",
            summary="one Mamba-2 mixer: causal, bidirectional, four directions, or a cross-scan of several orders",
            paper=_MAMBA2,
        ),
    )
