"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

_REORDER = "Kutscher et al., REOrdering Patches Improves Vision Models, NeurIPS 2025, arXiv 2505.23751"
_SHUFFLE = "Huang et al., Stochastic Layer-Wise Shuffle, ICML 2025, arXiv 2408.17081"


def _control(name: str, summary: str, settings: str | None = None, paper: str = _REORDER) -> Component:
    return Component(
        kind="control",
        name=name,
        target=f"reorder_controls.controls:{name}",
        settings=settings and f"reorder_controls.settings:{settings}",
        summary=summary,
        paper=paper,
    )


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        _control("initial", "the order that the policy starts from, kept fixed"),
        _control("learned_static", "the learned order, fixed from the first step"),
        _control("inverse", "the learned permutation inverted, fixed"),
        _control("reverse", "the learned order read backwards, fixed"),
        _control("random_fixed", "one random order, fixed", "RandomFixedSettings"),
        _control("random_each_batch", "a new random order for every batch", "RandomEachBatchSettings"),
        _control("readout_class", "the summary read at a class token", "ReadoutSettings"),
        _control("readout_mean", "the summary read as the mean of all patches", "ReadoutSettings"),
        _control("readout_last", "the summary read at the last patch", "ReadoutSettings"),
        _control(
            "layer_shuffle", "patches shuffled between the blocks while training", "LayerShuffleSettings", _SHUFFLE
        ),
        Component(
            kind="policy",
            name="uniform",
            target="reorder_controls.uniform:Uniform",
            settings="reorder_controls.settings:UniformSettings",
            summary="draws orders uniformly at random and never learns",
            paper=_REORDER,
        ),
    )
