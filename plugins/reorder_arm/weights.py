"""ARM's weights: those published, pretrained or fine-tuned, and those of a run with `arm_pretraining`.

N patches of our grid, M of theirs, D width, P side of a patch in pixels, C channels.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Grid, UsageError, load_weights, read_weights

# What a file has besides the blocks: the embedding, which `ArmEmbedding` takes; heads; the pretraining's decoder.
_ELSEWHERE = ("patch_embed.", "pos_embed", "head.", "mask")
_DECODER = re.compile(r"(ar_token|dec_pos_embed|enc2dec\.|dec_block\.|norm_[1-4]\.|ar_norm\.|ar_pred\.)")
# The parameters of a further direction, and the forward ones that they are copies of at first.
_DIRECTION = re.compile(r"(?P<head>.*\.mixer\.(?:conv1d|x_proj|dt_proj|A|D))(?P<suffix>_c_b|_c|_b)(?P<tail>.*)")


def read_arm(path: str) -> dict[str, Tensor]:
    """The named tensors of a file, as published; those of a run get the published names, its embedding's too.

    A published fine-tuned file has a row of `pos_embed` for its class token, in the middle: it comes back apart, as
    `pos_embed_class` [D]. Raises UsageError as `reorder_core.read_weights` does.
    """
    tensors = read_weights(path)
    if "cls_token" in tensors and "pos_embed" in tensors:
        width = tensors["pos_embed"].shape[-1]
        rows = tensors["pos_embed"].reshape(-1, width)
        middle = (len(rows) - 1) // 2
        tensors["pos_embed_class"] = rows[middle]
        tensors["pos_embed"] = torch.cat([rows[:middle], rows[middle + 1 :]])
    run = read_weights(path, of_run="model.")  # with its embedding; any other file has none of these names
    for ours, theirs in (
        ("embedding.project.weight", "patch_embed.proj.weight"),
        ("embedding.project.bias", "patch_embed.proj.bias"),
        ("position_ND", "pos_embed"),
        ("embedding.position_ND", "pos_embed"),
    ):
        if ours in run:
            tensors[theirs] = run[ours]
    return tensors


def load_arm(backbone: Any, path: str) -> None:
    """Put a file's blocks, last norm and class token into the backbone, and say in one sentence what does not fit.

    From pretraining, with one direction, each further direction starts as a copy of the forward one, as in the
    published fine-tuning; the class token then keeps its random start, and the last norm where the file has none.
    The class token's position (the middle row of a fine-tuned `pos_embed`) is added to the token.
    """
    tensors = read_arm(path)
    pretrained = not any(_DIRECTION.fullmatch(name) for name in tensors)

    def may_lack(name: str) -> bool:
        return pretrained and (bool(_DIRECTION.fullmatch(name)) or name == "cls_token" or name.startswith("norm_f."))

    load_weights(backbone, path, _own_name, may_lack)
    with torch.no_grad():
        if pretrained:
            own = dict(backbone.named_parameters())
            for name, parameter in own.items():
                if match := _DIRECTION.fullmatch(name):
                    parameter.copy_(own[match["head"] + match["tail"]])
        if "pos_embed_class" in tensors:
            backbone.cls_token += tensors["pos_embed_class"]


def _own_name(name: str) -> str | None:
    """Our name of a tensor of the backbone (the same), or None for one that is not the backbone's."""
    return None if name.startswith(_ELSEWHERE) or _DECODER.match(name) else name


class ArmEmbedding(nn.Module):
    """The patch embedding and learned positions of a file, [B, C, H, W] -> [B, N, D] in patch order.

    Positions of another square grid are interpolated bicubically, as in the published fine-tuning. Raises UsageError
    where the file has no patch embedding or no positions, or one of another shape.
    """

    def __init__(
        self, tensors: dict[str, Tensor], path: str, grid: Grid, patch: int, channels: int, width: int
    ) -> None:
        super().__init__()
        for name, what in (("patch_embed.proj.weight", "patch embedding"), ("pos_embed", "learned positions")):
            if name not in tensors:
                raise UsageError(
                    f"the weights {path} have no {what} ({name}): "
                    f"give a file of ARM's, or a run with learned positions that follow the patch"
                )
        weight, wanted = tensors["patch_embed.proj.weight"], (width, channels, patch, patch)
        if tuple(weight.shape) != wanted:
            raise UsageError(
                f"the weights {path} do not fit this model (of another shape: patch_embed.proj.weight is "
                f"{list(weight.shape)} and should be {list(wanted)}): change patch size or data to theirs"
            )
        self.project = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.project.load_state_dict({"weight": weight, "bias": tensors["patch_embed.proj.bias"]})
        self.position_ND = nn.Parameter(_fitted(tensors["pos_embed"], path, grid, width))
        self.position_ND._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        tokens_BND: Tensor = self.project(images_BCHW).flatten(2).transpose(1, 2) + self.position_ND
        return tokens_BND


def _fitted(pos_embed: Tensor, path: str, grid: Grid, width: int) -> Tensor:
    """[N, D] of our grid, from the rows of a file."""
    if pos_embed.shape[-1] != width:
        raise UsageError(
            f"the weights {path} do not fit this model (of another shape: pos_embed is {list(pos_embed.shape)} "
            f"and should end in {width}): change the width to theirs"
        )
    rows = pos_embed.reshape(-1, width).clone()
    if len(rows) == grid.size:
        return rows
    side = int(len(rows) ** 0.5 + 0.5)
    if side * side != len(rows) or grid.frames > 1:
        raise UsageError(
            f"the weights {path} have positions of {len(rows)} patches, which are no square and not the "
            f"{grid.size} of a grid of {grid}: choose image and patch size so that the grid is theirs"
        )
    square_1DHW = rows.T.reshape(1, width, side, side)
    fitted = functional.interpolate(square_1DHW, (grid.rows, grid.columns), mode="bicubic", align_corners=False)
    return fitted.reshape(width, grid.size).T.contiguous()
