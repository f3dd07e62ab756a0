"""What this room promises: an ordering and a command."""

from __future__ import annotations

from reorder_core import Command, Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="ordering",
            name="saliency",
            target="reorder_saliency.ordering:Saliency",
            settings="reorder_saliency.settings:SaliencySettings",
            summary="by the importance of patches to a trained model, or by their variance over the images",
            paper=(
                "rollout: Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers (arXiv 2005.00928); "
                "gradient: Shrikumar et al. 2017 (arXiv 1704.02685); occlusion: Zeiler & Fergus 2014 (arXiv 1311.2901)"
            ),
        ),
    )


@hookimpl
def commands() -> tuple[Command, ...]:
    return (
        Command("saliency", "reorder_saliency.command:command", "Where the salient patches stand in a run's order."),
    )
