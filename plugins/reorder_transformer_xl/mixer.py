"""The Transformer-XL mixer: attention of one layer (Dai et al. 2019, section 3).

Its parameters have the names and shapes of the authors' `dec_attn`, so that weights go across both ways.

B images, L tokens, S segments, T tokens of a segment, K keys of a segment, H heads, E width of a head, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Context, Layout, UsageError, uneven_heads
from reorder_transformer_xl.attention import AlsoInto, segment_attention
from reorder_transformer_xl.distances import RelativePositions
from reorder_transformer_xl.segments import Segments, cut, why_no_cut
from reorder_transformer_xl.settings import TransformerXLMixerSettings

Relative = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """What all layers share: the segments, what may not be seen, and u, v and distances where layers share them."""

    segments: Segments
    bias_BSTK: Tensor | None
    relative: Relative | None = None


@dataclass(frozen=True, slots=True)
class MixerState:
    """What the next token may look at: keys and values of its segment so far and of the memory, from place `first`."""

    first: int
    key_BJHE: Tensor
    value_BJHE: Tensor


class TransformerXLMixer(nn.Module):
    """See `TransformerXLMixerSettings`.

    shared_relative: u, v and the distances come with the plan (a backbone's layers share them) and are not its own.
    special: tokens of the sequence that are no patches. class_sees_all: the first token stands outside the causal rule.
    """

    orders = 1
    _keep_init = True

    def __init__(
        self,
        settings: TransformerXLMixerSettings,
        context: Context,
        *,
        shared_relative: bool = False,
        special: int = 0,
        class_sees_all: bool = False,
    ) -> None:
        super().__init__()
        width, self.heads = context.width, settings.heads
        if said := uneven_heads(width, settings.heads):
            raise UsageError(said)
        self.settings = settings
        self.class_sees_all = class_sees_all
        segments = self.segments(context.grid.size + special, special)
        self.attention = "causal" if settings.causal and not class_sees_all else "full"
        self.order_sensitive = settings.causal or settings.relative or segments.count > 1
        self.qkv_net = nn.Linear(width, 3 * width, bias=False)
        self.o_net = nn.Linear(width, width, bias=False)
        self.relative: RelativePositions | None = None
        if settings.relative:
            self.r_net = nn.Linear(width, width, bias=False)
            if not shared_relative:
                self.relative = relative_positions(settings, width, segments)
        initialise(self)

    def segments(self, length: int, special: int = 0) -> Segments:
        """How a sequence of `length` tokens is cut. Raises `UsageError` where it is shorter than a segment."""
        given = self.settings
        if message := why_no_cut(length, given.segment, special):
            raise UsageError(f"backbone.segment: {message}")
        return cut(length, given.segment, given.memory, given.faithful)

    def plan(self, layout: Layout | tuple[Layout, ...]) -> Plan:
        """The segments of this sequence and what their queries may not see."""
        layout = layout[0] if isinstance(layout, tuple) else layout
        segments = self.segments(layout.length, len(layout.special))
        device, valid_BL = layout.perm_GN.device, layout.valid_BL
        if not self.settings.causal and segments.length == segments.size and valid_BL is None:
            return Plan(segments, None)
        visible_BSTK = visible(segments, self.settings.causal, self.class_sees_all, device)
        if valid_BL is not None:
            visible_BSTK = without_padding(visible_BSTK, valid_BL, segments)
        hidden = torch.zeros((), device=device).masked_fill(~visible_BSTK, float("-inf"))
        return Plan(segments, hidden)

    def forward(self, tokens_BLD: Tensor, plan: Plan, remembered_BLD: Tensor | None = None) -> Tensor:
        """[B, L, D] to [B, L, D]. No gradient flows into tokens through the memory of later segments.

        remembered_BLD: the same values without a gradient into earlier layers, where the caller has them: a norm in
        between may want its own.
        """
        B, L, D = tokens_BLD.shape
        if plan.segments.memory and torch.is_grad_enabled() and not torch.compiler.is_exporting():
            remembered_BLD = tokens_BLD.detach() if remembered_BLD is None else remembered_BLD
            memory_BLX = self.qkv_net(remembered_BLD)
            own_BLX: Tensor = AlsoInto.apply(memory_BLX, tokens_BLD, self.qkv_net.weight)  # type: ignore[no-untyped-call]
        else:
            own_BLX = memory_BLX = self.qkv_net(tokens_BLD)
        shape = (B, L, 3, self.heads, D // self.heads)
        query, key, value = own_BLX.view(shape).unbind(2)
        _, memory_key, memory_value = memory_BLX.view(shape).unbind(2)
        mixed_BLHE = segment_attention(
            query, key, value, memory_key, memory_value, plan.segments, plan.bias_BSTK, self._position(plan)
        )
        output: Tensor = self.o_net(mixed_BLHE.flatten(2))
        return output

    def init_state(self, batch: int) -> MixerState:
        """The state before the first token: nothing to look at."""
        weight = self.qkv_net.weight
        nothing = weight.new_zeros(batch, 0, self.heads, weight.shape[1] // self.heads)
        return MixerState(0, nothing, nothing)

    def step(self, token_BD: Tensor, state: MixerState, plan: Plan) -> tuple[Tensor, MixerState]:
        """The next token of a causal layer: what `forward` gives at this place, from the state before it."""
        query_BHE, key_BHE, value_BHE = self.qkv_net(token_BD).unflatten(-1, (3, self.heads, -1)).unbind(1)
        place, size = state.first + state.key_BJHE.shape[1], plan.segments.size
        first = max(0, place // size * size - plan.segments.memory)
        key_BJHE, value_BJHE = (
            torch.cat([seen[:, first - state.first :], new.unsqueeze(1)], dim=1)
            for seen, new in ((state.key_BJHE, key_BHE), (state.value_BJHE, value_BHE))
        )
        position, J, scale = self._position(plan), key_BJHE.shape[1], query_BHE.shape[-1] ** -0.5
        if position is None:
            score_BHJ = torch.einsum("bhe,bjhe->bhj", query_BHE, key_BJHE)
        else:
            u_HE, v_HE, r_CHE = position
            score_BHJ = torch.einsum("bhe,bjhe->bhj", query_BHE + u_HE, key_BJHE)
            score_BHJ = score_BHJ + torch.einsum("bhe,jhe->bhj", query_BHE + v_HE, r_CHE[-1 - J : -1])
        mixed_BHE = torch.einsum("bhj,bjhe->bhe", (score_BHJ * scale).softmax(dim=-1), value_BJHE)
        return self.o_net(mixed_BHE.flatten(1)), MixerState(first, key_BJHE, value_BJHE)

    def _position(self, plan: Plan) -> Relative | None:
        """u_HE, v_HE and this layer's projected distances [C, H, E]."""
        if not self.settings.relative:
            return None
        relative = plan.relative
        if self.relative is not None:
            relative = self.relative(plan.segments)
        assert relative is not None
        u_HE, v_HE, vectors_CD = relative
        r_CD = self.r_net(vectors_CD.to(self.r_net.weight.dtype))
        return u_HE, v_HE, r_CD.unflatten(1, (self.heads, -1))


def initialise(module: nn.Module) -> None:
    """Xavier's uniform law for the linear layers, with zero biases (as Vaswani et al. 2017; qkv_net is three layers).

    The authors' normal law of 0.02 is about this at their widths (512, 1024). At a width of 64 it leaves attention so
    flat, and its branch so small beside a token that a norm follows, that order hardly reaches the class token.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            for part in layer.weight.chunk(3 if name.endswith("qkv_net") else 1):
                nn.init.xavier_uniform_(part)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def relative_positions(settings: TransformerXLMixerSettings, width: int, segments: Segments) -> RelativePositions:
    """u, v and distances as the settings say."""
    table = segments if settings.distances == "learned" else None
    return RelativePositions(width, settings.heads, settings.causal, table)


def visible(segments: Segments, causal: bool, class_sees_all: bool, device: torch.device) -> Tensor:
    """[S, T, K]: whether key j of a segment's window stands in the sequence and, where causal, not after query i."""
    S, T, M = segments.count, segments.size, segments.memory
    start_S11 = torch.arange(S, device=device).view(S, 1, 1) * T
    query_ST1 = start_S11 + torch.arange(T, device=device).view(1, T, 1)
    key_S1K = start_S11 - M + torch.arange(M + T, device=device)
    inside_S1K = (key_S1K >= 0) & (key_S1K < segments.length)
    if not causal:
        return inside_S1K.expand(S, T, M + T)
    seen_STK = key_S1K <= query_ST1
    if class_sees_all:
        seen_STK = seen_STK | (query_ST1 == 0) | (key_S1K == 0)
    return inside_S1K & seen_STK


def without_padding(visible_STK: Tensor, valid_BL: Tensor, segments: Segments) -> Tensor:
    """[B, S, T, K]: padding is seen by itself alone, which leaves no query without a key."""
    T, M = segments.size, segments.memory
    valid_BX = functional.pad(valid_BL, (M, segments.padding))
    valid_BS1K = valid_BX.unfold(1, M + T, T).unsqueeze(2)
    itself_TK = torch.ones(T, M + T, dtype=torch.bool, device=valid_BL.device).triu(M).tril(M)
    return visible_STK & valid_BS1K | itself_TK
