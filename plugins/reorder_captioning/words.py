"""Words as tokens, and features as words: the table that both readers share.

B captions, T places of a text, D width, V pieces.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_captioning.vocabulary import BEGIN


class Words(nn.Module):
    """An embedding of pieces with a learned vector for each place of a text, and the head that says pieces.

    A tied head is the embedding's table (Press & Wolf 2017). The table starts with a deviation of 1 / √D and is read
    times √D, as in Vaswani et al. 2017 (section 3.4), so that words enter as large as patches do.
    """

    def __init__(self, pieces: int, places: int, width: int, tied: bool, generator: torch.Generator | None) -> None:
        super().__init__()
        self.table_VD = nn.Parameter(torch.empty(pieces, width).normal_(std=width**-0.5, generator=generator))
        self.place_TD = nn.Parameter(torch.empty(places, width).normal_(std=0.02, generator=generator))
        self.bias_V = nn.Parameter(torch.zeros(pieces))
        self.head_VD = None
        if not tied:
            self.head_VD = nn.Parameter(torch.empty(pieces, width).normal_(std=width**-0.5, generator=generator))
        for parameter in (self.table_VD, self.place_TD):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    @property
    def places(self) -> int:
        """T: how many pieces a text may have, its end counted."""
        return self.place_TD.shape[0]

    def tokens(self, word_BT: Tensor, first: int = 0) -> Tensor:
        """Tokens [B, T, D] of pieces that stand at the places from `first` on."""
        place_TD = self.place_TD[first : first + word_BT.shape[1]]
        token_BTD: Tensor = functional.embedding(word_BT, self.table_VD) * self.table_VD.shape[1] ** 0.5
        return token_BTD + place_TD

    def logits(self, features: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the next piece, float32 [..., V] also under autocast."""
        table_VD = self.table_VD if self.head_VD is None else self.head_VD
        return functional.linear(features, table_VD.to(features.dtype)).float() + self.bias_V


def read_before(target_BT: Tensor) -> Tensor:
    """What is read where `target_BT` is to be said: the begin mark, then each target but the last."""
    begin_B1 = torch.full_like(target_BT[:, :1], BEGIN)
    return torch.cat([begin_B1, target_BT[:, :-1]], dim=1)
