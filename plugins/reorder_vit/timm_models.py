"""A vision transformer of timm by its name: which names fit, the size of its images, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm
from timm.layers.patch_embed import PatchEmbed
from timm.models import is_model_in_modules
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from reorder_core import Context, UsageError, read_weights
from reorder_vit.settings import TimmVitSettings

_FAMILIES = ("vision_transformer", "deit", "eva")
_HEADS = ("head.", "head_dist.")


def timm_model(settings: TimmVitSettings, context: Context) -> nn.Module:
    """timm's model without a classifier, for the images of this run: its positions are resampled to the grid, its
    patch embedding to the patch and to the number of channels, where weights are loaded.

    Raises `UsageError` for a name that is no plain vision transformer, and for weights that are not there or misfit.
    """
    name, grid = settings.model, context.grid
    _refuse_other_names(name)
    if grid.frames > 1:
        raise UsageError("timm's vision transformers read single images, not frames: choose the backbone vit")
    options = {
        "img_size": (grid.rows * context.patch, grid.columns * context.patch),
        "patch_size": context.patch,
        "in_chans": context.channels,
        "num_classes": 0,
        "dynamic_img_size": False,
        "drop_path_rate": settings.drop_path,
    }
    model = _create(name, settings.weights, options)
    if not isinstance(model, VisionTransformer | Eva) or type(model.patch_embed) is not PatchEmbed:
        raise UsageError(_unfit(name))
    if settings.depth is not None:
        if settings.depth > len(model.blocks):
            raise UsageError(f"backbone.depth: '{name}' has {len(model.blocks)} blocks, not {settings.depth}")
        model.blocks = model.blocks[: settings.depth]
        for k, block in enumerate(model.blocks):  # the rate rises to the last block that is kept
            for part in (getattr(block, "drop_path1", None), getattr(block, "drop_path2", None)):
                if hasattr(part, "drop_prob"):
                    part.drop_prob = settings.drop_path * k / max(1, settings.depth - 1)
    return model


def _refuse_other_names(name: str) -> None:
    if not timm.is_model(name):
        near = get_close_matches(name.split(".")[0], timm.list_models(module=list(_FAMILIES)), n=1)
        advice = f"did you mean '{near[0]}'?" if near else "timm.list_models('*vit*') shows the names"
        raise UsageError(f"backbone.model: timm knows no model '{name}': {advice}")
    if not is_model_in_modules(name, list(_FAMILIES)):
        raise UsageError(_unfit(name))


def _unfit(name: str) -> str:
    return (
        f"backbone.model: '{name}' is no plain vision transformer whose patches can be reordered: choose a ViT, DeiT, "
        f"CLIP, SigLIP, DINOv2, DINOv3 or EVA model of timm"
    )


def _refuse_unknown_tag(name: str) -> None:
    """`model.tag` names the weights of a model; timm knows which there are without the network."""
    model, _, tag = name.partition(".")
    known = [each.partition(".")[2] for each in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in known:
        there = f"it has {', '.join(known)}" if known else "timm has none of it"
        raise UsageError(f"backbone.model: '{model}' has no weights tagged '{tag}': {there}")


def _create(name: str, weights: str | None, options: Mapping[str, Any]) -> Any:
    _refuse_unknown_tag(name)
    if weights is None:
        return timm.create_model(name, pretrained=False, **options)
    if weights != "pretrained":
        return _from_file(name, weights, options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # whatever the hub, its cache and the network raise
        raise UsageError(
            f"backbone.weights: timm could not get the pretrained weights of '{name}' ({_line(error)}): connect to the "
            f"network once, or give a file"
        ) from error


def _from_file(name: str, path: str, options: Mapping[str, Any]) -> Any:
    """timm resamples and renames as it does with its own weights of this name, and then everything must fit."""
    state = {key: value for key, value in read_weights(path).items() if not key.startswith(_HEADS)}
    try:
        overlay: dict[str, Any] = {"state_dict": state, "num_classes": 0}
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:  # what timm's filters raise
        raise UsageError(
            f"the weights {path} do not fit '{name}' ({_line(error)}): name the model they are of"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def split_positions(model: Any) -> tuple[Tensor | None, Tensor | None]:
    """The learned positions of the special tokens [1, S, D] and of the patches [1, N, D]; None where there are none."""
    if model.pos_embed is None:
        return None, None
    positions = model.pos_embed.detach()
    special = 0 if model.no_embed_class else model.num_prefix_tokens
    return (positions[:, :special] if special else None), positions[:, special:]
