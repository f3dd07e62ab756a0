"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="dataset",
            name="planted",
            target="reorder_planted.planted:Planted",
            settings="reorder_planted.settings:PlantedSettings",
            summary="pictures in which only some tiles carry the class, at a place that a setting moves; no download",
        ),
    )
