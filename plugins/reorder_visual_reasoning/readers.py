"""How a question meets the patches: after them in one sequence, or by looking at them from outside.

B images, N patches, T tokens of a question, D width of the backbone, E width of the question.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reorder_core import Draw, Features, Layout, UsageError


class QuestionTokens(nn.Module):
    """A vector a word (padding has one too) and one a place, counted from the end: int64 [B, T] -> [B, T, E]."""

    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.place_TE = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.word.weight, std=0.5)  # beside patch tokens, which are far from small
        nn.init.trunc_normal_(self.place_TE, std=0.02)
        self.place_TE._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, ids_BT: Tensor) -> Tensor:
        tokens_BTE: Tensor = self.word(ids_BT) + self.place_TE
        return tokens_BTE


class SuffixReader(nn.Module):
    """The question's tokens follow the patches; what is read is the last of them, which has seen everything.

    A causal backbone reads the patches before it knows what it will be asked.
    """

    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.tokens = QuestionTokens(words, length, width)
        self.width = width

    def forward(self, run: Any, images_BCHW: Tensor, order: Layout | Draw, ids_BT: Tensor) -> Tensor:
        """What was understood, [B, D]."""
        features: Features = run(images_BCHW, order, self.tokens(ids_BT))
        assert features.text_BTD is not None
        return features.text_BTD[:, -1]


def refuse_without_text(backbone: Any) -> None:
    """Raise `UsageError` where no question can follow the patches."""
    if not getattr(backbone, "takes_text", False):
        raise UsageError(
            f"the backbone {type(backbone).__name__} reads patches only, and no question after them: "
            f"set task.reader to cross_attention, or choose another backbone"
        )


class CrossBlock(nn.Module):
    """Self-attention over the question, cross-attention to the image, MLP; pre-norm, with residuals."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, question_BTE: Tensor, image_BNE: Tensor, padding_BN: Tensor | None) -> Tensor:
        inner = self.norm_self(question_BTE)
        question_BTE = question_BTE + self.attend(inner, inner, inner, need_weights=False)[0]
        query = self.norm_cross(question_BTE)
        seen, _ = self.look(query, image_BNE, image_BNE, key_padding_mask=padding_BN, need_weights=False)
        question_BTE = question_BTE + seen
        output_BTE: Tensor = question_BTE + self.mlp(self.norm_mlp(question_BTE))
        return output_BTE


class CrossAttentionReader(nn.Module):
    """The question, encoded by blocks that look at the tokens of the backbone's last level, in whatever order.

    Works for every backbone: the image is read without the question. What is read is the question's last token.
    """

    def __init__(
        self, words: int, length: int, image_width: int, width: int, depth: int, heads: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.tokens = QuestionTokens(words, length, width)
        self.to_question = nn.Linear(image_width, width)
        self.norm_image = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(CrossBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.width = width

    def forward(self, run: Any, images_BCHW: Tensor, order: Layout | Draw, ids_BT: Tensor) -> Tensor:
        """What was understood, [B, E]."""
        level = run(images_BCHW, order).levels[-1]  # `image_width` is its width: a hierarchy's levels differ
        image_BNE = self.norm_image(self.to_question(level.tokens_BND))
        valid_BN = level.layout.valid_BN
        question_BTE = self.tokens(ids_BT)
        for block in self.blocks:
            question_BTE = block(question_BTE, image_BNE, None if valid_BN is None else ~valid_BN)
        understood_BE: Tensor = self.norm(question_BTE[:, -1])
        return understood_BE
