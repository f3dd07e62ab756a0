"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="policy",
            name="gumbel_sinkhorn",
            target="reorder_sinkhorn.policy:GumbelSinkhorn",
            settings="reorder_sinkhorn.settings:GumbelSinkhornSettings",
            summary="learns an order through the task's gradient, by doubly stochastic matrices read straight-through",
            paper="Mena et al. 2018, Learning Latent Permutations with Gumbel-Sinkhorn Networks, arXiv 1802.08665",
        ),
    )
