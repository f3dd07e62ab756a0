"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="task",
            name="visual_reasoning",
            target="reorder_visual_reasoning.task:VisualReasoning",
            settings="reorder_visual_reasoning.settings:VisualReasoningSettings",
            summary="a question and an image to one of the known answers: accuracy by kind of question",
        ),
    )
