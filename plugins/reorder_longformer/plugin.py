"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

PAPER = "Beltagy, Peters & Cohan, Longformer: The Long-Document Transformer, 2020 (arXiv 2004.05150)"


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="mixer",
            name="longformer",
            target="reorder_longformer.mixer:LongformerMixer",
            settings="reorder_longformer.settings:LongformerMixerSettings",
            summary="attention within a sliding window of slots, dilated or not, and to global tokens",
            paper=PAPER,
        ),
        Component(
            kind="backbone",
            name="longformer",
            target="reorder_longformer.backbone:LongformerBackbone",
            settings="reorder_longformer.settings:LongformerSettings",
            summary="Longformer: sliding-window attention and a global class token; linear in the length",
            paper=PAPER,
        ),
    )
