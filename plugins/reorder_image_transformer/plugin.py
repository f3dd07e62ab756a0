"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

PAPER = "Parmar et al., Image Transformer, ICML 2018 (arXiv 1802.05751)"


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="mixer",
            name="image_transformer",
            target="reorder_image_transformer.mixer:ImageTransformerMixer",
            settings="reorder_image_transformer.settings:ImageTransformerMixerSettings",
            summary="local self-attention: query blocks and the memory around them, in the sequence or on the grid",
            paper=PAPER,
        ),
        Component(
            kind="backbone",
            name="image_transformer",
            target="reorder_image_transformer.backbone:ImageTransformerBackbone",
            settings="reorder_image_transformer.settings:ImageTransformerSettings",
            summary="Image Transformer: local self-attention in 1-D blocks of the sequence or 2-D blocks of the grid",
            paper=PAPER,
        ),
    )
