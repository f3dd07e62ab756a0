"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="task",
            name="segmentation",
            target="reorder_segmentation.task:Segmentation",
            settings="reorder_segmentation.settings:SegmentationSettings",
            summary="the class of each pixel from the restored grid: cross-entropy and dice of an image, mean IoU",
        ),
    )
