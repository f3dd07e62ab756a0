"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

_PAPER = "Ren et al., Autoregressive Pretraining with Mamba in Vision, ICLR 2025 (arXiv 2406.07537)"


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="backbone",
            name="arm",
            target="reorder_arm.backbone:ArmBackbone",
            settings="reorder_arm.settings:ArmSettings",
            summary="blocks of Mamba and SwiGLU MLP, four directions from one order; takes ARM's public weights",
            paper=_PAPER,
        ),
        Component(
            kind="task",
            name="arm_pretraining",
            target="reorder_arm.task:ArmPretraining",
            settings="reorder_arm.settings:ArmPretrainingSettings",
            summary="predict the pixels of the next cluster of patches, in the order that is given; needs no labels",
            paper=_PAPER,
        ),
    )
