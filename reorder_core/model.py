"""The one place where patches, positions, order and backbone meet.

B images, C channels, H W pixels, N patches or slots, D width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from reorder_core.errors import UsageError
from reorder_core.grid import Grid
from reorder_core.interfaces.backbone import Features
from reorder_core.interfaces.policy import Draw
from reorder_core.layout import Layout

Positions = Literal["learned", "sincos2d", "sincos1d", "none"]
Follow = Literal["patch", "slot"]
Order = Layout | Draw | tuple[Layout, ...]


class PatchEmbedding(nn.Module):
    """Square patches to tokens in patch order, [B, C, H, W] -> [B, N, D]: one convolution, as timm's PatchEmbed."""

    def __init__(self, grid: Grid, patch: int, channels: int, width: int) -> None:
        super().__init__()
        self.pixels = (grid.rows * patch, grid.columns * patch)
        self.project = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        # The convolution keeps PyTorch's own initialisation, as in timm: with weights of 0.02 the tokens are so small
        # that the first blocks drown them, and a causal model needs epochs more to leave chance (docs/results.md).

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if tuple(images_BCHW.shape[-2:]) != self.pixels:
            height, width = images_BCHW.shape[-2:]
            raise UsageError(
                f"the data set gives images of {height}x{width} pixels, but it described them as "
                f"{self.pixels[0]}x{self.pixels[1]}: make its describe() and its images agree"
            )
        return self.project(images_BCHW).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def sincos2d(grid: Grid, width: int) -> Tensor:
    """Fixed sine and cosine positions of the rows and columns, float32 [N, D] (MoCo v3, as timm's build_sincos2d).

    The four quarters of D are sin(row), cos(row), sin(column), cos(column) at frequencies 10000^(-4k/D).
    Raises `UsageError` where D is not divisible by 4 or the grid has more than one frame.
    """
    if width % 4 or grid.frames > 1:
        raise UsageError(
            f"positions.kind: sincos2d needs a width divisible by 4 and a single frame, not width {width} "
            f"on a grid of {grid}: use learned positions"
        )
    places_N3 = torch.from_numpy(grid.places()).double()
    frequency_F = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row_NF, column_NF = (places_N3[:, axis, None] * frequency_F for axis in (0, 1))
    return torch.cat([row_NF.sin(), row_NF.cos(), column_NF.sin(), column_NF.cos()], dim=1).float()


def sincos1d(grid: Grid, width: int) -> Tensor:
    """Fixed sine and cosine positions of the patch number, float32 [N, D] (Vaswani et al. 2017, section 3.5).

    The halves of D are sin and cos at frequencies 10000^(-2k/D). Raises `UsageError` where D is odd.
    """
    if width % 2:
        raise UsageError(f"positions.kind: sincos1d needs an even width, not {width}: use learned positions")
    number_N = torch.arange(grid.size, dtype=torch.float64)
    angle_NF = number_N[:, None] * 10000 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    return torch.cat([angle_NF.sin(), angle_NF.cos()], dim=1).float()


class Model(nn.Module):
    """Images to features: embed patches, add positions, put them in order, run the backbone.

    With `follow: patch` the position belongs to the *place* that a patch was cut from, and travels with it, also
    through a soft order. With `follow: slot` it belongs to the slot of the sequence and is added after ordering.

    A backbone with `embedding(grid, patch, channels)` (not None) brings its own patch embedding [B, C, H, W] ->
    [B, N, D] with its positions; the recipe then says `positions: {kind: none}`.

    further_RN: what a backbone that wants R + 1 orders at once reads besides the one it is given, int64 [R, N].
    """

    position_ND: Tensor | None
    further_RN: Tensor | None

    def __init__(
        self,
        backbone: Any,
        grid: Grid,
        patch: int,
        channels: int,
        positions: Positions = "learned",
        follow: Follow = "patch",
        further_RN: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.follow = follow
        own = backbone.embedding(grid, patch, channels) if hasattr(backbone, "embedding") else None
        if own is not None and positions != "none":
            raise UsageError(
                "this backbone brings its own patch embedding and positions: write positions: {kind: none}"
            )
        width = int(getattr(backbone, "token_width", backbone.width))
        self.embedding = PatchEmbedding(grid, patch, channels, width) if own is None else own
        if positions == "learned":
            self.position_ND = nn.Parameter(nn.init.trunc_normal_(torch.empty(grid.size, width), std=0.02))
            self.position_ND._no_weight_decay = True  # type: ignore[attr-defined]
        else:
            fixed = {"sincos2d": sincos2d, "sincos1d": sincos1d}.get(positions)
            self.register_buffer("position_ND", None if fixed is None else fixed(grid, width), persistent=False)
        self.backbone = backbone
        self.register_buffer("further_RN", further_RN, persistent=False)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Tokens [B, N, D] in patch order, with the positions of their places where positions follow the patch."""
        tokens_BND: Tensor = self.embedding(images_BCHW)
        if self.position_ND is not None and self.follow == "patch":
            tokens_BND = tokens_BND + self.position_ND
        return tokens_BND

    def forward(self, images_BCHW: Tensor, order: Order, text_BTD: Tensor | None = None) -> Features:
        """Read images [B, C, H, W] in `order`; a soft draw is read through its soft order, laid out as its hard one.

        text_BTD: tokens of a text that follow the patches in the same sequence. Raises `UsageError` where the backbone
        reads patches only.
        """
        if text_BTD is None:
            return self.backbone(*self.ordered(images_BCHW, order))  # type: ignore[no-any-return]
        if not getattr(self.backbone, "takes_text", False):
            raise UsageError(
                f"the backbone {type(self.backbone).__name__} reads patches only, and no text after them: "
                f"choose another backbone, or a task whose reader looks at the patches from outside"
            )
        return self.backbone(*self.ordered(images_BCHW, order), text_BTD)  # type: ignore[no-any-return]

    def ordered(self, images_BCHW: Tensor, order: Order) -> tuple[Tensor, Layout | tuple[Layout, ...]]:
        """What the backbone is given: tokens [B, N, D] that stand in this order, and their layout.

        A backbone that wants several orders is told the further ones as well: the model's own, or the rest of a tuple.
        """
        tokens_BND = self.embed(images_BCHW)
        order, *others = order if isinstance(order, tuple) else (order,)
        layout = (order.layout(self.grid) if isinstance(order, Draw) else order).to(tokens_BND.device)
        soft = order.soft if isinstance(order, Draw) else None
        tokens_BND = layout.order(tokens_BND) if soft is None else soft(tokens_BND)
        if self.position_ND is not None and self.follow == "slot":
            tokens_BND = tokens_BND + self.position_ND
        further = [other.to(tokens_BND.device) for other in others]
        if not further and self.further_RN is not None:
            further = [Layout.fixed(self.grid, perm_N) for perm_N in self.further_RN]
        return tokens_BND, (layout, *further) if further else layout
