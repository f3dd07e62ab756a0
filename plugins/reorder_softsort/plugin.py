"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="policy",
            name="softsort",
            target="reorder_softsort.policy:SoftSort",
            settings="reorder_softsort.settings:SoftSortSettings",
            summary="learns N scores through a soft sort (SoftSort, NeuralSort or LapSum), straight-through",
            paper="Prillo & Eisenschlos 2020, arXiv 2006.16038; Grover et al., 1903.08850; Struski et al., 2503.06242",
        ),
        Component(
            kind="policy",
            name="shuffle_softsort",
            target="reorder_softsort.shuffle:ShuffleSoftSort",
            settings="reorder_softsort.settings:ShuffleSoftSortSettings",
            summary="sorts softly along shuffled lines, one after the other; for long sequences",
            paper="Barthel, Barthel & Eisert 2025, arXiv 2503.13051",
        ),
    )
