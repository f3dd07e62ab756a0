"""The Image Transformer as a backbone: the shared skeleton around its local attention."""

from __future__ import annotations

from reorder_core import Context, SequenceBackbone
from reorder_image_transformer.mixer import ImageTransformerMixer
from reorder_image_transformer.settings import ImageTransformerSettings


class ImageTransformerBackbone(SequenceBackbone):
    """See `ImageTransformerSettings`. Parameters are named as in timm's ViT, with `mixer` for its `attn`."""

    def __init__(self, settings: ImageTransformerSettings, context: Context) -> None:
        super().__init__(settings, context, lambda inner: ImageTransformerMixer(settings, inner))

    def rename_weight(self, name: str) -> str | None:
        """timm calls the mixer `attn`; its patch embedding, positions and head stand outside of the backbone."""
        if name.startswith(("patch_embed.", "head.")) or name == "pos_embed":
            return None
        return name.replace(".attn.", ".mixer.")
