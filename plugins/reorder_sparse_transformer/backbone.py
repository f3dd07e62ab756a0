"""The Sparse Transformer as a backbone: the shared skeleton around its sparse attention."""

from __future__ import annotations

from itertools import count

from reorder_core import Context, SequenceBackbone
from reorder_sparse_transformer.mixer import SparseTransformerMixer
from reorder_sparse_transformer.settings import SparseTransformerSettings


class SparseTransformerBackbone(SequenceBackbone):
    """See `SparseTransformerSettings`. Parameters are named as in timm's ViT, with `mixer` for its `attn`."""

    def __init__(self, settings: SparseTransformerSettings, context: Context) -> None:
        layer = count()
        super().__init__(
            settings, context, lambda inner: SparseTransformerMixer(settings, inner, next(layer), settings.depth)
        )

    def rename_weight(self, name: str) -> str | None:
        """timm calls the mixer `attn`; its patch embedding, positions and head stand outside of the backbone."""
        if name.startswith(("patch_embed.", "head.")) or name == "pos_embed":
            return None
        return name.replace(".attn.", ".mixer.")
