"""Saying a caption piece by piece: greedy and beam search over anything that says what may come next.

B images, K lines of each, R = B × K rows, T places of a text, V pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from reorder_captioning.vocabulary import BEGIN, END, PAD, UNKNOWN


class Speaker(Protocol):
    """Says what may come next. A state belongs to rows, and is never changed: each step gives a new one."""

    def start(self) -> tuple[Tensor, Any]:
        """Logits of the first piece of each image, float32 [B, V], and the state after the begin mark."""
        ...

    def next(self, word_R: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the piece after these, float32 [R, V], and the state after them."""
        ...

    def taken(self, state: Any, row_R: Tensor) -> Any:
        """The state whose row r is row `row_R[r]` of this one."""
        ...


@dataclass(frozen=True, slots=True)
class Lines:
    """The best line of each image. word_BT: int64, padded after its end. log_prob_B: of all its pieces, float32.

    length_B: pieces, the end counted.
    """

    word_BT: Tensor
    log_prob_B: Tensor
    length_B: Tensor


@torch.no_grad()
def search(speaker: Speaker, places: int, beam: int = 1, length_penalty: float = 0.0) -> Lines:
    """Keep the `beam` best lines of each image at each step (Graves 2012); 1 is greedy.

    Lines compare by log-probability / length ** length_penalty, those that have ended among those that go on. One line
    of a beam is always the greedy one, so that a beam never says anything worse than greedy does. places: pieces of a
    line at most, its end counted: at the last place nothing but the end may follow. No mark is said but the end, and
    that not at once.
    """
    logits_BV, state = speaker.start()
    B, V = logits_BV.shape
    log_prob_BV = _sayable(logits_BV, end_only=places == 1, first=places > 1)
    score_BK, word_BK = log_prob_BV.topk(min(beam, V), dim=1)
    K, image_B1 = word_BK.shape[1], torch.arange(B, device=word_BK.device).unsqueeze(1)
    if K > 1:
        state = speaker.taken(state, image_B1.expand(B, K).flatten())
    line_BKT, length_BK = word_BK.unsqueeze(2), torch.ones_like(word_BK)
    for place in range(1, places):
        ended_BK = (word_BK == END) | (word_BK == PAD)
        if bool(ended_BK.all()):
            break
        logits_RV, state = speaker.next(word_BK.flatten(), state)
        log_prob_BKV = _sayable(logits_RV, end_only=place == places - 1).view(B, K, V)
        log_prob_BKV = torch.where(ended_BK.unsqueeze(2), _only_padding(log_prob_BKV), log_prob_BKV)
        length_BK = length_BK + (~ended_BK).long()
        total_BKV = score_BK.unsqueeze(2) + log_prob_BKV
        rank_BKV = total_BKV / length_BK.unsqueeze(2) ** length_penalty
        choice_BK = _best(rank_BKV, log_prob_BKV[:, 0].argmax(dim=1), min(beam, K * V))
        from_BK, word_BK = choice_BK // V, choice_BK % V
        score_BK = total_BKV.flatten(1).gather(1, choice_BK)
        length_BK = length_BK.gather(1, from_BK)
        line_BKT = torch.cat([line_BKT.take_along_dim(from_BK.unsqueeze(2), dim=1), word_BK.unsqueeze(2)], dim=2)
        if beam > 1:
            state, K = speaker.taken(state, (image_B1 * K + from_BK).flatten()), word_BK.shape[1]
    best_B1 = (score_BK / length_BK**length_penalty).argmax(dim=1, keepdim=True)
    word_BT = line_BKT.take_along_dim(best_B1.unsqueeze(2), dim=1)[:, 0]
    return Lines(word_BT, score_BK.gather(1, best_B1)[:, 0], length_BK.gather(1, best_B1)[:, 0])


def _best(rank_BKV: Tensor, greedy_B: Tensor, lines: int) -> Tensor:
    """The best continuations as numbers k × V + v, [B, lines]; first, of line 0 (the greedy one) its likeliest."""
    rank_BC = rank_BKV.flatten(1).clone()
    rank_BC.scatter_(1, greedy_B.unsqueeze(1), float("inf"))
    return rank_BC.topk(lines, dim=1).indices


def _sayable(logits_RV: Tensor, end_only: bool, first: bool = False) -> Tensor:
    """Log-probabilities, with minus infinity for what must not be said here."""
    log_prob_RV = logits_RV.log_softmax(dim=1)
    banned_V = torch.zeros(log_prob_RV.shape[1], dtype=torch.bool, device=log_prob_RV.device)
    if end_only:
        banned_V[:] = True
        banned_V[END] = False
    else:
        banned_V[[PAD, BEGIN, UNKNOWN]] = True
        banned_V[END] = first
    return log_prob_RV.masked_fill(banned_V, float("-inf"))


def _only_padding(log_prob_BKV: Tensor) -> Tensor:
    """What follows a line's end: padding, at no cost."""
    after_BKV = torch.full_like(log_prob_BKV, float("-inf"))
    after_BKV[..., PAD] = 0.0
    return after_BKV
