"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl

PAPER = (
    "Child et al., Generating Long Sequences with Sparse Transformers, 2019 (arXiv 1904.10509); "
    "Zaheer et al., Big Bird, NeurIPS 2020 (arXiv 2007.14062)"
)


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="mixer",
            name="sparse_transformer",
            target="reorder_sparse_transformer.mixer:SparseTransformerMixer",
            settings="reorder_sparse_transformer.settings:SparseTransformerMixerSettings",
            summary="sparse self-attention: strided, fixed, or BigBird's window, global and random blocks",
            paper=PAPER,
        ),
        Component(
            kind="backbone",
            name="sparse_transformer",
            target="reorder_sparse_transformer.backbone:SparseTransformerBackbone",
            settings="reorder_sparse_transformer.settings:SparseTransformerSettings",
            summary="Sparse Transformer: strided or fixed factorised attention, or BigBird's blocks",
            paper=PAPER,
        ),
    )
