"""The reader `cross_attention`: a transformer decoder that looks at the backbone's tokens (Vaswani et al. 2017).

B images, S tokens of the backbone, T places of a text, D width, H heads, E width of a head, R rows (lines of a beam).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from reorder_captioning.search import Speaker
from reorder_captioning.settings import CaptioningSettings
from reorder_captioning.vocabulary import BEGIN
from reorder_captioning.words import Words
from reorder_core import Context, Draw, Grid, Layout, UsageError, uneven_heads
from reorder_core.model import sincos1d


class KeyValue(NamedTuple):
    """What is looked at: keys and values, [B, H, T, E]."""

    key_BHTE: Tensor
    value_BHTE: Tensor

    def rows(self, row_R: Tensor) -> KeyValue:
        """Those of some rows."""
        return KeyValue(self.key_BHTE[row_R], self.value_BHTE[row_R])

    def then(self, other: KeyValue) -> KeyValue:
        """These, and the others after them."""
        return KeyValue(*(torch.cat(pair, dim=2) for pair in zip(self, other, strict=True)))


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be made beforehand and kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def seen(self, tokens_BSD: Tensor) -> KeyValue:
        """Keys and values of tokens."""
        return KeyValue(*(self._split(part) for part in self.key_value(tokens_BSD).chunk(2, dim=-1)))

    def forward(self, tokens_BTD: Tensor, seen: KeyValue, visible: Tensor | None, causal: bool = False) -> Tensor:
        """visible: bool, broadcast to [B, H, T, S], or None for all. causal: T = S, and none sees those after it."""
        mixed_BHTE = scaled_dot_product_attention(
            self._split(self.query(tokens_BTD)), *seen, attn_mask=visible, is_causal=causal
        )
        output_BTD: Tensor = self.out(mixed_BHTE.transpose(1, 2).flatten(2))
        return output_BTD

    def _split(self, tokens_BTD: Tensor) -> Tensor:
        B, T, D = tokens_BTD.shape
        return tokens_BTD.reshape(B, T, self.heads, D // self.heads).transpose(1, 2)


class DecoderBlock(nn.Module):
    """Pre-norm: words look at the words before them, then at the image, then an MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_words, self.norm_image, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.words, self.image = Attention(width, heads), Attention(width, heads)
        self.mlp = Mlp(width, 4 * width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, text_BTD: Tensor, image: KeyValue, visible_B11S: Tensor | None, before: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        """A whole text, or with `before` the words seen so far the one that follows them; and the words seen then."""
        normed_BTD = self.norm_words(text_BTD)
        seen = self.words.seen(normed_BTD)
        if before is not None:
            seen = before.then(seen)
        text_BTD = text_BTD + self.drop(self.words(normed_BTD, seen, None, causal=before is None))
        text_BTD = text_BTD + self.drop(self.image(self.norm_image(text_BTD), image, visible_B11S))
        return text_BTD + self.drop(self.mlp(self.norm_mlp(text_BTD))), seen


class CrossAttentionReader(nn.Module):
    """A decoder over the tokens of the backbone's last level, in reading order; its width is theirs.

    With slot positions a learned vector for each slot is added to the normalised tokens. They start as sines as large
    as the tokens: from small random ones a decoder learns where to look more slowly. Raises `UsageError` for heads that
    do not divide the width.
    """

    def __init__(self, words: Words, settings: CaptioningSettings, context: Context) -> None:
        super().__init__()
        width, heads = context.width, settings.heads or 4
        if said := uneven_heads(width, heads):
            raise UsageError(f"task.heads: {said}")
        self.words = words
        self.norm_tokens = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, heads, settings.dropout or 0.0) for _ in range(settings.depth or 2)
        )
        self.norm = nn.LayerNorm(width)
        self.slot_ND = None
        if settings.slot_positions:
            if width % 2:
                raise UsageError(f"task.slot_positions: needs an even width, not {width}: leave it out")
            self.slot_ND = nn.Parameter(sincos1d(Grid(1, context.grid.size), width))
            self.slot_ND._no_weight_decay = True  # type: ignore[attr-defined]
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.trunc_normal_(parameter, std=0.02, generator=context.generator)

    def forward(self, run: Any, images_BCHW: Tensor, order: Layout | Draw) -> SeenBeside:
        """Images, read once, to be looked at by any text."""
        level = run(images_BCHW, order).levels[-1]
        tokens_BSD = level.tokens_BND
        tokens_BSD = self.norm_tokens(tokens_BSD)
        if self.slot_ND is not None:
            tokens_BSD = tokens_BSD + self.slot_ND[: tokens_BSD.shape[1]]
        valid_BN = getattr(level.layout, "valid_BN", None)
        visible_B11S = None if valid_BN is None else valid_BN[:, None, None]
        blocks: list[Any] = list(self.blocks)
        return SeenBeside(self, [block.image.seen(tokens_BSD) for block in blocks], visible_B11S)


class SeenBeside:
    """Images of a batch as keys and values of each block; also a `Speaker`, which keeps those of the words."""

    def __init__(self, reader: CrossAttentionReader, image: list[KeyValue], visible_B11S: Tensor | None) -> None:
        self._reader, self._image, self._visible_B11S = reader, image, visible_B11S

    def logits(self, word_BT: Tensor) -> Tensor:
        """Of the piece after each of these, float32 [B, T, V]."""
        text_BTD = self._reader.words.tokens(word_BT)
        for block, image in zip(self._reader.blocks, self._image, strict=True):
            text_BTD, _ = block(text_BTD, image, self._visible_B11S)
        return self._reader.words.logits(self._reader.norm(text_BTD))

    def speaker(self) -> Speaker:
        return self

    def start(self) -> tuple[Tensor, Any]:
        B = self._image[0].key_BHTE.shape[0]
        begin_B = torch.full((B,), BEGIN, dtype=torch.int64, device=self._image[0].key_BHTE.device)
        image = [KeyValue(*(part.float() for part in each)) for each in self._image]
        return self.next(begin_B, ([None] * len(image), image, self._visible_B11S, 0))

    def next(self, word_R: Tensor, state: Any) -> tuple[Tensor, Any]:
        before, image, visible_R11S, place = state
        text_R1D, after = self._reader.words.tokens(word_R.unsqueeze(1), place), []
        for block, its_image, so_far in zip(self._reader.blocks, image, before, strict=True):
            text_R1D, seen = block(text_R1D, its_image, visible_R11S, so_far)
            after.append(seen)
        logits_RV = self._reader.words.logits(self._reader.norm(text_R1D)[:, 0])
        return logits_RV, (after, image, visible_R11S, place + 1)

    def taken(self, state: Any, row_R: Tensor) -> Any:
        before, image, visible_R11S, place = state
        visible = None if visible_R11S is None else visible_R11S[row_R]
        return [each.rows(row_R) for each in before], [each.rows(row_R) for each in image], visible, place
