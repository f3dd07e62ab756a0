"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="task",
            name="captioning",
            target="reorder_captioning.task:Captioning",
            settings="reorder_captioning.settings:CaptioningSettings",
            summary="captions word by word, after the patches or looking at them: CIDEr, BLEU, ROUGE-L, exact match",
        ),
    )
