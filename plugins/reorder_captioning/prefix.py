"""The reader `prefix`: the patches in their order, then the words, in one causal sequence.

B images, N patches, T places of a text, D width, V pieces, R rows (lines of a beam).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reorder_captioning.rows import taken
from reorder_captioning.search import Speaker
from reorder_captioning.vocabulary import BEGIN, PAD
from reorder_captioning.words import Words
from reorder_core import Draw, Layout, UsageError


class PrefixReader(nn.Module):
    """A language model whose prefix is the image: what stands after the last patch says the first piece, and so on.

    Texts are padded to the same number of places whatever the batch, so that no backbone that cuts its sequence by its
    length reads an image otherwise in another batch.
    """

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words

    def forward(self, run: Any, images_BCHW: Tensor, order: Layout | Draw) -> SeenBefore:
        """Images, to be read with texts after them."""
        return SeenBefore(self.words, run, images_BCHW, order)


def refuse_backbone(backbone: Any) -> None:
    """Raise `UsageError` where a text cannot follow the patches, or where the patches would see it."""
    advice = "or let a decoder look at the patches from outside: task.reader: cross_attention"
    if not getattr(backbone, "takes_text", False):
        raise UsageError(
            f"task.reader: the backbone {type(backbone).__name__} takes no text after the patches: choose another, "
            f"{advice}"
        )
    if backbone.attention == "full":
        raise UsageError(
            f"task.reader: with full attention the patches would see the caption that is to be said after them: "
            f"make the backbone causal (mamba: direction: causal), {advice}"
        )


class SeenBefore:
    """Images of a batch and their order; each reading of a text reads them again."""

    def __init__(self, words: Words, run: Any, images_BCHW: Tensor, order: Layout | Draw) -> None:
        self._words, self._run, self._images_BCHW, self._order = words, run, images_BCHW, order

    def logits(self, word_BT: Tensor) -> Tensor:
        """Of the piece after each of these, float32 [B, T, V]."""
        text_BTD = self._words.tokens(word_BT)
        return self._words.logits(_text(self._run(self._images_BCHW, self._order, text_BTD)))

    def speaker(self) -> Speaker:
        """With the backbone's own state where it can go by steps with these tokens; else every step reads anew."""
        if not hasattr(self._run, "ordered"):
            return Rereading(self._words, self._through_run, self._images_BCHW)
        tokens_BND, layout = self._run.ordered(self._images_BCHW, self._order)
        backbone = self._run.backbone
        if goes_by_steps(backbone) and not isinstance(layout, tuple) and layout.valid_BN is None:
            return StepByStep(self._words, backbone, tokens_BND)

        def read(text_RTD: Tensor, row_R: Tensor) -> Tensor:
            layouts = tuple(one.part(row_R) for one in layout) if isinstance(layout, tuple) else layout.part(row_R)
            return _text(backbone(tokens_BND[row_R], layouts, text_RTD))

        return Rereading(self._words, read, tokens_BND)

    def _through_run(self, text_RTD: Tensor, row_R: Tensor) -> Tensor:
        order: Any = self._order
        return _text(self._run(self._images_BCHW[row_R], order.part(row_R), text_RTD))


def _text(features: Any) -> Tensor:
    assert features.text_BTD is not None  # the contract of a backbone that takes a text
    text_BTD: Tensor = features.text_BTD
    return text_BTD


def goes_by_steps(backbone: Any) -> bool:
    """Whether the backbone can be run token by token as it is set up: it says so when it is asked for a state."""
    if not (hasattr(backbone, "init_state") and hasattr(backbone, "step")):
        return False
    try:
        backbone.init_state(1, 1)
    except UsageError:  # with a class token or an operator between its blocks, say
        return False
    return True


class StepByStep:
    """A `Speaker` that reads patches and words one by one, and keeps the backbone's state."""

    def __init__(self, words: Words, backbone: Any, tokens_BND: Tensor) -> None:
        self._words, self._backbone, self._tokens_BND = words, backbone, tokens_BND

    def start(self) -> tuple[Tensor, Any]:
        fresh = self._backbone.init_state(self._tokens_BND.shape[0], self._words.places)
        state = fresh
        for token_BD in self._tokens_BND.unbind(1):
            _, state = self._backbone.step(token_BD, state)
        begin_B = torch.full_like(self._tokens_BND[:, 0, 0], BEGIN, dtype=torch.int64)
        return self.next(begin_B, (state, fresh, 0))

    def next(self, word_R: Tensor, state: Any) -> tuple[Tensor, Any]:
        inner, fresh, place = state
        output_RD, inner = self._backbone.step(self._words.tokens(word_R.unsqueeze(1), place)[:, 0], inner)
        return self._words.logits(output_RD), (inner, fresh, place + 1)

    def taken(self, state: Any, row_R: Tensor) -> Any:
        inner, fresh, place = state
        wanted = self._backbone.init_state(len(row_R), self._words.places)
        return taken(inner, fresh, wanted, row_R), wanted, place


class Rereading:
    """A `Speaker` that reads the whole sequence anew for each piece.

    read: tokens of a text [R, T, D] that follows the patches of the images `row_R`, to what became of them.
    """

    def __init__(self, words: Words, read: Any, images_B: Tensor) -> None:
        self._words, self._read, self._images_B = words, read, images_B

    def start(self) -> tuple[Tensor, Any]:
        image_B = torch.arange(len(self._images_B), device=self._images_B.device)
        nothing_B0 = torch.empty(len(image_B), 0, dtype=torch.int64, device=image_B.device)
        return self.next(torch.full_like(image_B, BEGIN), (nothing_B0, image_B))

    def next(self, word_R: Tensor, state: Any) -> tuple[Tensor, Any]:
        so_far_RT, image_R = state
        so_far_RT = torch.cat([so_far_RT, word_R.unsqueeze(1)], dim=1)
        place = so_far_RT.shape[1] - 1
        padded_RT = nn.functional.pad(so_far_RT, (0, self._words.places - place - 1), value=PAD)
        text_RTD = self._read(self._words.tokens(padded_RT), image_R)
        return self._words.logits(text_RTD[:, place]), (so_far_RT, image_R)

    def taken(self, state: Any, row_R: Tensor) -> Any:
        so_far_RT, image_R = state
        return so_far_RT[row_R], image_R[row_R]
