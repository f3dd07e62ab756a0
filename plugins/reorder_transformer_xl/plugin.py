"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

PAPER = (
    "Dai et al., Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context, ACL 2019 (arXiv 1901.02860)"
)


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="backbone",
            name="transformer_xl",
            target="reorder_transformer_xl.backbone:TransformerXLBackbone",
            settings="reorder_transformer_xl.settings:TransformerXLSettings",
            summary="attention segment by segment with a memory of those before, and positions relative to the reader",
            paper=PAPER,
        ),
        Component(
            kind="mixer",
            name="transformer_xl",
            target="reorder_transformer_xl.mixer:TransformerXLMixer",
            settings="reorder_transformer_xl.settings:TransformerXLMixerSettings",
            summary="attention segment by segment with a memory of those before, and positions relative to the reader",
            paper=PAPER,
        ),
    )
