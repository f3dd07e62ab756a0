"""The Longformer's attention: local attention in a sliding window, and global attention with projections of its own.

B images, L = N + S tokens of a sequence, D width, H heads, E = D / H, G global tokens.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reorder_core import Context, Layout, UsageError, uneven_heads
from reorder_core.interfaces.backbone import Attention
from reorder_longformer.settings import LongformerMixerSettings, too_wide
from reorder_longformer.sliding_window import check_backend, choose_backend, sliding_window_attention


class Plan(NamedTuple):
    """What all blocks of a stack share.

    places: of the global tokens in the sequence, ascending. place_G: the same as a tensor. valid_BL: False where a
    slot is padding, or None. mask: flex attention's, where that is what runs.
    """

    places: tuple[int, ...]
    place_G: Tensor
    valid_BL: Tensor | None
    mask: Any


class LongformerMixer(nn.Module):
    """Sliding-window attention and global tokens (Beltagy et al. 2020, section 3.1), and a projection of the output.

    Parameters have the names of Hugging Face's `LongformerSelfAttention` (`query`, …, `value_global`), and `proj`.
    project_globally: whether there are projections for global tokens; left out: unless the setting is `none`.
    Raises `UsageError` where heads do not divide the width or the window is larger than the sequence, and `RunError`
    where flex attention is asked for and can not run.
    """

    attention: Attention = "full"
    order_sensitive = True
    orders = 1

    def __init__(
        self, settings: LongformerMixerSettings, context: Context, project_globally: bool | None = None
    ) -> None:
        super().__init__()
        width = context.width
        if said := uneven_heads(width, settings.heads) or too_wide(
            settings.window, settings.dilation, context.grid.size
        ):
            raise UsageError(said)
        check_backend(settings.attention_backend, width // settings.heads)
        self.settings, self.heads = settings, settings.heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project_globally = settings.global_tokens != "none" if project_globally is None else project_globally
        if self.project_globally:
            self.query_global, self.key_global, self.value_global = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def plan(self, layout: Layout | tuple[Layout, ...]) -> Plan:
        """Which tokens are global in this layout. Raises `UsageError` where there should be some and are none."""
        layout = layout[0] if isinstance(layout, tuple) else layout
        if said := too_wide(self.settings.window, self.settings.dilation, layout.length):
            raise UsageError(said)
        places = self._global_places(layout)
        if self.project_globally and not places:
            raise UsageError(
                "global_tokens: this sequence has no special tokens that could be global: "
                "choose 'none', or the number of patches to a global one"
            )
        device, valid_BL = layout.perm_GN.device, layout.valid_BL
        place_G = torch.tensor(places, dtype=torch.int64, device=device)
        return Plan(places, place_G, valid_BL, self._mask(layout.length, places, valid_BL, device))

    def forward(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        output: Tensor = self.proj(self.mix(tokens_BLD, plan))
        return output

    def mix(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """The same before the last projection: what Hugging Face's `LongformerSelfAttention` gives."""
        mixed_BHLE = sliding_window_attention(
            self._in_heads(self.query(tokens_BLD)),
            self._in_heads(self.key(tokens_BLD)),
            self._in_heads(self.value(tokens_BLD)),
            self.settings.window,
            self.settings.dilation,
            plan.places,
            plan.valid_BL,
            self.settings.attention_backend,
            plan.mask,
        )
        mixed_BLD = mixed_BHLE.transpose(1, 2).flatten(2)
        if not plan.places:
            return mixed_BLD
        global_BGD = self._global_attention(tokens_BLD, plan)
        return mixed_BLD.index_copy(1, plan.place_G, global_BGD.to(mixed_BLD.dtype))

    def _in_heads(self, tokens_BLD: Tensor) -> Tensor:
        return tokens_BLD.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _global_attention(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """What the global tokens see: every token, [B, G, D].

        Keys and values of all tokens would cost 2 L D² multiplications. With few global tokens it is cheaper to take
        the key's matrix to the queries and the value's to the weighted mean of the tokens, since
        q · (W x + b) = (Wᵀ q) · x + q · b and Σ p (W x + b) = W Σ p x + b: 2 L D G H.
        """
        query_BHGE = self._in_heads(self.query_global(tokens_BLD.index_select(1, plan.place_G)))
        query_BHGE = query_BHGE / math.sqrt(query_BHGE.shape[-1])
        key, value, heads = self.key_global, self.value_global, (self.heads, -1)
        if len(plan.places) * self.heads > tokens_BLD.shape[2]:
            key_BHLE, value_BHLE = self._in_heads(key(tokens_BLD)), self._in_heads(value(tokens_BLD))
            padding = None if plan.valid_BL is None else ~plan.valid_BL[:, None, None]
            weight_BHGL = _softmax(query_BHGE @ key_BHLE.mT, padding)
            return (weight_BHGL @ value_BHLE).transpose(1, 2).flatten(2)
        # r: the heads and, within them, the global tokens, H * G rows of one matrix.
        seen_BrD = (query_BHGE @ key.weight.unflatten(0, heads)).flatten(1, 2)
        offset_Br1 = (query_BHGE @ key.bias.unflatten(0, heads).unsqueeze(-1)).flatten(1, 2)
        padding = None if plan.valid_BL is None else ~plan.valid_BL[:, None]
        weight_BrL = _softmax(seen_BrD @ tokens_BLD.mT + offset_Br1, padding)
        mean_BHGD = (weight_BrL @ tokens_BLD).unflatten(1, heads)
        mixed_BHGE = mean_BHGD @ value.weight.unflatten(0, heads).mT
        return mixed_BHGE.transpose(1, 2).flatten(2) + value.bias

    def _global_places(self, layout: Layout) -> tuple[int, ...]:
        chosen = self.settings.global_tokens
        if chosen == "none" or not self.project_globally:
            return ()
        if chosen == "special":
            return layout.special
        return tuple(sorted({*layout.special, *layout.patch_places()[chosen // 2 :: chosen]}))

    def _mask(self, length: int, places: tuple[int, ...], valid_BL: Tensor | None, device: torch.device) -> Any:
        """Flex attention's mask where it runs; the dtype is asked for again where the attention is computed."""
        width = self.query.out_features // self.heads
        if choose_backend(self.settings.attention_backend, device, self.query.weight.dtype, width) != "flex":
            return None
        from reorder_longformer.flex import flex_mask

        return flex_mask(length, self.settings.window, self.settings.dilation, places, valid_BL, device)


def _softmax(score: Tensor, padding: Tensor | None) -> Tensor:
    if padding is not None:
        score = score.masked_fill(padding, torch.finfo(score.dtype).min)
    return score.softmax(-1)
