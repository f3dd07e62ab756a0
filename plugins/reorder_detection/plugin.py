"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="task",
            name="detection",
            target="reorder_detection.task:Detection",
            settings="reorder_detection.settings:DetectionSettings",
            summary="boxes: FCOS on the restored grid, or DETR's queries on the sequence; COCO mAP",
        ),
    )
