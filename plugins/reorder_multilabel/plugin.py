"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="task",
            name="multilabel",
            target="reorder_multilabel.task:Multilabel",
            settings="reorder_multilabel.settings:MultilabelSettings",
            summary="several classes an image: binary cross-entropy or the asymmetric loss, mean average precision",
        ),
    )
