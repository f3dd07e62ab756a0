"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="task",
            name="classification",
            target="reorder_classification.task:Classification",
            settings="reorder_classification.settings:ClassificationSettings",
            summary="one class an image: cross-entropy, top-1 and top-5, label smoothing, mixup and cutmix",
        ),
    )
