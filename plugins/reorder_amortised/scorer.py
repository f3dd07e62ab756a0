"""From the patches of an image to a score for each. B images, N patches, D width of a token, H hidden width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Scorer(nn.Module):
    """w · gelu(W norm(token) + V mean(norm(tokens)) + place), [B, N]; V only where `context`.

    w starts at zero, so that at first no patch of any image has a score; the place embedding starts small, as
    positions do, and is there because tokens need not carry their own.
    """

    def __init__(self, patches: int, width: int, hidden: int, context: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.token = nn.Linear(width, hidden)
        self.image = nn.Linear(width, hidden, bias=False) if context else None
        self.place_NH = nn.Parameter(nn.init.trunc_normal_(torch.empty(patches, hidden), std=0.02))
        self.weight_H = nn.Parameter(torch.zeros(hidden))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        normed_BND = self.norm(tokens_BND)
        hidden_BNH = self.token(normed_BND) + self.place_NH
        if self.image is not None:
            hidden_BNH = hidden_BNH + self.image(normed_BND.mean(dim=1, keepdim=True))
        return functional.gelu(hidden_BNH) @ self.weight_H
