"""timm's vision transformers in any order: patches are put in order after patch and position embedding.

B images, C channels, H W pixels, N patches, S special tokens (class, distillation, registers), L = S + N, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from reorder_core import Context, Grid, Layout, SequenceModel, SequenceSettings, UsageError, seeded
from reorder_core.sequence import Reading
from reorder_vit.settings import TimmVitSettings
from reorder_vit.timm_models import split_positions, timm_model


class Plan(NamedTuple):
    """What all blocks share: the mask over padding [B, 1, 1, L], and the rotary table of the patches in this order."""

    mask: Tensor | None
    rope: Tensor | None


class TimmEmbedding(nn.Module):
    """timm's patch embedding and its positions of the patches: images [B, C, H, W] to tokens [B, N, D]."""

    pos_embed: Tensor | None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.patch_embed, self.pos_drop = model.patch_embed, model.pos_drop
        positions_1ND = split_positions(model)[1]
        self.pos_embed = None if positions_1ND is None else _position(positions_1ND)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Raises `UsageError` for images of another size than the data set described."""
        if tuple(images_BCHW.shape[-2:]) != tuple(self.patch_embed.img_size):
            raise UsageError(
                f"the data set gives images of {tuple(images_BCHW.shape[-2:])} pixels, but it described them as "
                f"{tuple(self.patch_embed.img_size)}: make its describe() and its images agree"
            )
        tokens_BND: Tensor = self.patch_embed(images_BCHW)
        return self.pos_drop(tokens_BND if self.pos_embed is None else tokens_BND + self.pos_embed)  # type: ignore[no-any-return]


class TimmVit(SequenceModel):
    """See `TimmVitSettings`. In `vit` are timm's own modules under timm's names, the patch embedding apart.

    Special tokens stand before the patches, wherever the order puts these. Rotary tables (EVA-02, DINOv3, RoPE-ViT)
    are gathered by the order, so that a patch turns by its own place.
    """

    def __init__(self, settings: TimmVitSettings, context: Context) -> None:
        with seeded(context.generator):
            model: Any = timm_model(settings, context)
        size = {"width": model.embed_dim, "depth": len(model.blocks)}
        super().__init__(SequenceSettings(**size, between=settings.between), context)
        self.settings, self._context = settings, context
        self.order_sensitive = False
        _read_where(model, settings)
        special_1SD = split_positions(model)[0]
        self.special_position = None if special_1SD is None else _position(special_1SD)
        # In a tuple, as the embedding's parameters are the model's that asks for it, and not this module's.
        self._embedding = (TimmEmbedding(model),)
        model.patch_embed, model.pos_embed = nn.Identity(), None
        self.vit = model
        self.takes_text = getattr(model, "rope", None) is None  # timm turns every token that is no prefix

    def embedding(self, grid: Grid, patch: int, channels: int) -> TimmEmbedding:
        """timm's patch embedding with its positions. It was made for the grid of the context, and for no other."""
        assert (grid, patch, channels) == (self._context.grid, self._context.patch, self._context.channels)
        return self._embedding[0]

    def start(self, tokens_BND: Tensor, layout: Layout | tuple[Layout, ...], text_BTD: Tensor | None = None) -> Reading:
        """tokens_BND in reading order, positions added; some models have a norm before the first block."""
        text_BTD = None if text_BTD is None else self.vit.norm_pre(text_BTD)
        return super().start(self.vit.norm_pre(tokens_BND), layout, text_BTD)

    def special_places(self, N: int) -> tuple[int, ...]:
        return tuple(range(self.vit.num_prefix_tokens))

    def special_tokens(self) -> Tensor | None:
        """Class, distillation and register tokens with their positions, as timm's `_pos_embed` makes them."""
        vit = self.vit
        tokens = [getattr(vit, name, None) for name in ("cls_token", "dist_token", "reg_token")]
        present = [token_1SD for token_1SD in tokens if token_1SD is not None]
        if not present:
            return None
        tokens_1SD = torch.cat(present, dim=1)
        if self.special_position is not None:
            tokens_1SD = tokens_1SD + self.special_position
        return vit.norm_pre(vit.pos_drop(tokens_1SD))  # type: ignore[no-any-return]

    def plan(self, layout: Layout) -> Plan:  # type: ignore[override]
        valid_BL = layout.valid_BL
        return Plan(None if valid_BL is None else valid_BL[:, None, None, :], self._rope(layout))

    def _rope(self, layout: Layout) -> Tensor | None:
        """The rotary table in this order: [N, 2E], or [B, 1, N, 2E] for several; with a first axis for the blocks and
        one for the heads where each block has its own (RoPE-mixed)."""
        rope = getattr(self.vit, "rope", None)
        if rope is None:
            return None
        grid = layout.grid
        table: Tensor = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed([grid.rows, grid.columns])
        if layout.group_B is None:
            return table.index_select(-2, layout.perm_GN[0])
        perm_BN = layout.perm_GN[layout.group_B]
        if table.ndim == 2:
            return table[perm_BN].unsqueeze(1)
        return table[:, :, perm_BN].transpose(1, 2)

    def blocks_in_order(self) -> Iterable[Any]:
        return [partial(self._block, k) for k in range(len(self.vit.blocks))]

    def _block(self, k: int, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        options = {} if plan.mask is None else {"attn_mask": plan.mask}
        if plan.rope is not None:
            options["rope"] = plan.rope[k] if getattr(self.vit, "rope_mixed", False) else plan.rope
        return self.vit.blocks[k](tokens_BLD, **options)  # type: ignore[no-any-return]

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        return self.vit.norm(tokens_BLD)  # type: ignore[no-any-return]

    def summarise(self, patches_BND: Tensor, special_BSD: Tensor, layout: Layout) -> Tensor:
        """What timm's `forward_head(…, pre_logits=True)` gives; padding is left out of a mean."""
        vit, valid_BN = self.vit, layout.valid_BN
        if valid_BN is None or (vit.attn_pool is None and vit.global_pool == "token"):
            return vit.forward_head(torch.cat([special_BSD, patches_BND], dim=1), pre_logits=True)  # type: ignore[no-any-return]
        if vit.attn_pool is not None or vit.global_pool != "avg" or getattr(vit, "pool_include_prefix", False):
            raise UsageError(
                f"'{self.settings.model}' cannot leave padding out of its readout: write readout: mean, or use a model "
                f"that is read at its class token"
            )
        weight_BN1 = valid_BN.to(patches_BND.dtype).unsqueeze(-1)
        mean_BD = (patches_BND * weight_BN1).sum(dim=1) / weight_BN1.sum(dim=1).clamp(min=1)
        return vit.head_drop(vit.fc_norm(mean_BD))  # type: ignore[no-any-return]


def _read_where(model: Any, settings: TimmVitSettings) -> None:
    """Make the model read its summary where the settings say. Raises `UsageError` where it can not."""
    if settings.readout == "model":
        return
    if isinstance(model, VisionTransformerDistilled) and settings.readout == "mean":
        raise UsageError(
            f"backbone.readout: '{settings.model}' is read at its class and distillation tokens: write readout: model"
        )
    if settings.readout == "class" and model.cls_token is None:
        raise UsageError(f"backbone.readout: '{settings.model}' has no class token: write model or mean")
    model.attn_pool, model.pool_include_prefix = None, False
    model.global_pool = "token" if settings.readout == "class" else "avg"


def _position(position_1SD: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(position_1SD.clone())
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return parameter
