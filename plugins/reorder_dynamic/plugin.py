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
        Component(
            kind="between",
            name="dynamic_reorder",
            target="reorder_dynamic.dynamic_reorder:DynamicReorder",
            settings="reorder_dynamic.settings:DynamicReorderSettings",
            summary="after some blocks, puts each image's patches in the order of what they seem to tell",
            paper="Ilse et al. 2018, arXiv 1802.04712 (weights of an exit); Prillo & Eisenschlos 2020 (SoftSort)",
        ),
        Component(
            kind="control",
            name="nothing_between",
            target="reorder_dynamic.control:nothing_between",
            summary="the same run with nothing between the blocks of the backbone",
        ),
    )
