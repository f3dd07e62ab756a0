"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="policy",
            name="reinforce",
            target="reorder_reinforce.policy:Reinforce",
            settings="reorder_reinforce.settings:ReinforceSettings",
            summary="learns an order with REINFORCE over Plackett-Luce distributions",
            paper="Kutscher et al. 2025, arXiv 2505.23751; Kool et al. 2019 (leave-one-out baseline)",
        ),
    )
