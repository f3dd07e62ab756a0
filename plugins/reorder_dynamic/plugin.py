"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="between",
            name="layer_shuffle",
            target="reorder_dynamic.layer_shuffle:LayerShuffle",
            settings="reorder_dynamic.settings:LayerShuffleSettings",
            summary="shuffles what a layer reads while training, deeper layers more often",
            paper="Huang et al., Stochastic Layer-Wise Shuffle, ICML 2025, arXiv 2408.17081",
        ),
    )
