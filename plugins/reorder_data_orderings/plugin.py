"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="ordering",
            name="spectral",
            target="reorder_data_orderings.spectral:Spectral",
            settings="reorder_data_orderings.settings:SpectralSettings",
            summary="learned from the images: patches that vary together stand near each other (Fiedler vector)",
            paper=(
                "Fiedler 1973, Czechoslovak Mathematical Journal 23; "
                "Atkins, Boman & Hendrickson 1998, SIAM Journal on Computing 28"
            ),
        ),
        Component(
            kind="ordering",
            name="greedy_similarity",
            target="reorder_data_orderings.greedy:GreedySimilarity",
            settings="reorder_data_orderings.settings:GreedySimilaritySettings",
            summary="learned from the images: a short tour through patches that look alike (nearest neighbour, 2-opt)",
            paper="Rosenkrantz, Stearns & Lewis 1977, SIAM Journal on Computing 6; Croes 1958, Operations Research 6",
        ),
    )
