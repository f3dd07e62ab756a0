"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="task",
            name="reconstruction",
            target="reorder_reconstruction.task:Reconstruction",
            settings="reorder_reconstruction.settings:ReconstructionSettings",
            summary="self-supervised: the pixels of masked patches, squared error of normalised patches",
        ),
    )
