"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="policy",
            name="amortised",
            target="reorder_amortised.policy:Amortised",
            settings="reorder_amortised.settings:AmortisedSettings",
            summary="a small scorer on the patches gives each image its own order",
            paper="Kool et al. 2019 (leave-one-out baseline); Prillo & Eisenschlos 2020, arXiv 2006.16038 (SoftSort)",
        ),
    )
