"""Where patches and special tokens stand in the sequence, as masks want to know it.

N patches, S special tokens, b 1 or B images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reorder_core import Layout


class Places(NamedTuple):
    """number_1N1: slots counted from 1 on. key_bN1: the same, with 0 for padding. padded: whether there is any.

    special_at: for each special token, how many patches stand before it.
    """

    number_1N1: Tensor
    key_bN1: Tensor
    padded: bool
    special_at: tuple[int, ...]

    @classmethod
    def of(cls, layout: Layout) -> Places:
        """Of the patches of a layout."""
        number_1N1 = torch.arange(1, layout.perm_GN.shape[1] + 1, device=layout.perm_GN.device)[None, :, None]
        valid_BN = layout.valid_BN
        key_bN1 = number_1N1 if valid_BN is None else number_1N1 * valid_BN.unsqueeze(-1)
        special_at = tuple(place - k for k, place in enumerate(layout.special))
        return cls(number_1N1, key_bN1, valid_BN is not None, special_at)

    def special_seen(self, number: Tensor, causal: bool) -> Tensor:
        """Which special tokens queries of these numbers [..., 1] see: bool [..., S]."""
        if causal:
            return number > torch.tensor(self.special_at, device=number.device)
        return torch.ones(*number.shape[:-1], len(self.special_at), dtype=torch.bool, device=number.device)

    def seen_by_special(self, causal: bool) -> Tensor | None:
        """Where special tokens look: bool [b, 1, S, S + N], special tokens first; None: everywhere."""
        if not (causal or self.padded):
            return None
        S, key_b1N = len(self.special_at), self.key_bN1.transpose(1, 2)
        seen = (key_b1N > 0).expand(-1, S, -1)
        among = torch.ones(S, S, dtype=torch.bool, device=key_b1N.device)
        if causal:
            seen = seen & (key_b1N <= torch.tensor(self.special_at, device=key_b1N.device)[:, None])
            among = among.tril()
        return torch.cat([among.expand(seen.shape[0], S, S), seen], dim=-1).unsqueeze(1)
