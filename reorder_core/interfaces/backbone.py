"""A backbone reads a sequence of tokens in the order it is given.

B images, N patches or slots, D width, S special tokens, L = N + S tokens of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from reorder_core.layout import Layout

Attention = Literal["full", "prefix", "causal"]


@dataclass(frozen=True, slots=True)
class Level:
    """Tokens of one scale and where they stand: tokens_BND in reading order, without special tokens."""

    tokens_BND: Tensor
    layout: Layout


@dataclass(frozen=True, slots=True)
class Features:
    """What a backbone hands on.

    levels: one for most models, several for a hierarchy, finest first.
    summary_BD: one vector an image, read where the backbone's readout says.
    exits: summaries [B, D] of earlier blocks, for a head to be read on them too; empty for most models.
    text_BTD: what became of the text that stood after the patches, where there was one.
    """

    levels: tuple[Level, ...]
    summary_BD: Tensor
    exits: tuple[Tensor, ...] = field(default=())
    text_BTD: Tensor | None = None


@runtime_checkable
class Backbone(Protocol):
    """A `torch.nn.Module` from ordered tokens to features.

    width: D. attention: what a token may look at. order_sensitive: whether the summary depends on the order
    (conformance holds it to that). orders: how many layouts it wants at once (1, or more for a cross-scan).

    Optional members that the model uses where they are present:
    `token_width`, the width of the tokens it takes, where that is not the summary's (a hierarchy grows wider);
    `grids`, those of its levels, finest first, where they are not the one grid of patches: a task can then refuse them
    before anything is read;
    `between(k, tokens, layout) -> (tokens, layout)`, called by the backbone after each block where it was set (see
    `interfaces/between.py`); a backbone whose settings have `between` sets it to the component named there;
    `order_per_image = False` where it cannot read each image of a batch in an order of its own;
    `takes_text = True` where forward also takes tokens [B, T, D] of a text, read after the patches in the same sequence
    (a causal model's patches do not see them, and each of them sees the patches and the text before it);
    `init_state(batch, text)` / `step(token_BD, state) -> (output_BD, state)` for cached decoding, token by token: the
    patches, then as many tokens of a text as were announced;
    `embedding(grid, patch, channels) -> nn.Module` when it brings a pretrained patch embedding and positions.
    """

    width: int
    attention: Attention
    order_sensitive: bool
    orders: int

    def forward(self, tokens_BND: Tensor, layout: Layout | tuple[Layout, ...]) -> Features:
        """tokens_BND stand in the order of `layout` (of its first, where it is a tuple), positions added."""
        ...
