"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

_VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929)"


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="backbone",
            name="vit",
            target="reorder_vit.backbone:VitBackbone",
            settings="reorder_vit.settings:VitSettings",
            summary="vision transformer with timm's names: full attention, blind to the order",
            paper=_VIT,
        ),
        Component(
            kind="backbone",
            name="timm_vit",
            target="reorder_vit.timm_vit:TimmVit",
            settings="reorder_vit.settings:TimmVitSettings",
            summary="any vision transformer of timm by name, with its pretrained weights: blind to the order",
            paper=_VIT,
        ),
        Component(
            kind="mixer",
            name="vit",
            target="reorder_vit.attention:FullAttention",
            settings="reorder_vit.settings:VitMixerSettings",
            summary="full multi-head self-attention, rotary by place where asked for",
            paper=_VIT,
        ),
    )
