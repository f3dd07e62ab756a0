"""The Transformer-XL backbone: layers with memory, and where its summary is read.

B images, L tokens (patches and class token), D width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Context, Layout, SequenceModel, UsageError
from reorder_core.sequence import refuse_blind_class_token, seeded
from reorder_core.weights import load_weights, read_weights
from reorder_transformer_xl.mixer import MixerState, Plan, TransformerXLMixer, initialise, relative_positions
from reorder_transformer_xl.settings import TransformerXLSettings


class Block(nn.Module):
    """One layer: norm(x + mixer(x)), norm(x + mlp(x)); or x + mixer(norm(x)), x + mlp(norm(x)) where `pre`.

    The memory of a layer is its *input* in earlier segments: where a norm comes first, the norm's own parameters do
    get a gradient through it, as in the authors' code.
    """

    def __init__(self, settings: TransformerXLSettings, mixer: TransformerXLMixer, drop_path: float) -> None:
        super().__init__()
        width = settings.width
        self.pre = settings.norm == "pre"
        self.norm1 = nn.LayerNorm(width)
        self.mixer = mixer
        self.drop = nn.Dropout(settings.dropout)
        self.drop_path = DropPath(drop_path)
        self.norm2, self.mlp = None, None
        if settings.mlp_ratio:
            self.norm2 = nn.LayerNorm(width)
            self.mlp = Mlp(width, int(width * settings.mlp_ratio), act_layer=nn.ReLU, drop=settings.dropout)

    def forward(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        if self.pre:
            return self._after(tokens_BLD, self._attend(tokens_BLD, plan))
        return self._after(tokens_BLD, self.mixer(tokens_BLD, plan))

    def step(self, token_BD: Tensor, state: MixerState, plan: Plan) -> tuple[Tensor, MixerState]:
        """The next token, from the state before it (outside of training)."""
        branch_BD, after = self.mixer.step(self.norm1(token_BD) if self.pre else token_BD, state, plan)
        return self._after(token_BD, branch_BD), after

    def _after(self, tokens: Tensor, branch: Tensor) -> Tensor:
        """What follows the mixer: its branch is added, then that of the MLP; [B, L, D], or [B, D] of a step."""
        tokens = tokens + self.drop_path(self.drop(branch))
        if not self.pre:
            tokens = self.norm1(tokens)
        if self.mlp is None:
            return tokens
        if self.pre:
            return tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        normed: Tensor = self.norm2(tokens + self.drop_path(self.mlp(tokens)))
        return normed

    def _attend(self, tokens_BLD: Tensor, plan: Plan) -> Tensor:
        """mixer(norm1(x)); the norm's parameters get their gradient through the remembered copy, which feeds both."""
        if not (plan.segments.memory and torch.is_grad_enabled() and not torch.compiler.is_exporting()):
            return self.mixer(self.norm1(tokens_BLD), plan)
        norm = self.norm1
        own_BLD = functional.layer_norm(
            tokens_BLD, norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps
        )
        return self.mixer(own_BLD, plan, norm(tokens_BLD.detach()))


@dataclass(frozen=True, slots=True)
class TransformerXLState:
    """Between two steps: how the sequence is cut, and what each layer may look at."""

    plan: Plan
    layers: list[MixerState]


class TransformerXLBackbone(SequenceModel):
    """See `TransformerXLSettings`. Layers share u, v and the distances, as in the paper (`relative`)."""

    def __init__(self, settings: TransformerXLSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.grid = context.grid
        inner = context.changed(width=settings.width)
        special = settings.special_tokens()
        if message := settings.why_read_alone(context.grid.size):
            raise UsageError(f"backbone.segment: {message}")
        with seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            self.blocks = nn.ModuleList(
                Block(
                    settings,
                    TransformerXLMixer(
                        settings,
                        inner,
                        shared_relative=True,
                        special=special,
                        class_sees_all=settings.class_sees_all(),
                    ),
                    rate,
                )
                for rate in rates
            )
            first: TransformerXLMixer = self.blocks[0].mixer
            self.relative = None
            if settings.relative:
                length = context.grid.size + special
                self.relative = relative_positions(settings, settings.width, first.segments(length, special))
            self.norm = nn.LayerNorm(settings.width)
            self.make_class_token()
            initialise(self)
        # a table of distances ends with the patches, unless segments have a length of their own
        self.takes_text = not (settings.relative and settings.distances == "learned" and settings.segment == "auto")
        self.attention = first.attention
        self.order_sensitive = first.order_sensitive or settings.readout == "last"
        refuse_blind_class_token(self)
        if settings.weights is not None:
            load_weights(self, settings.weights, renamed, _absent_in(settings.weights))

    def blocks_in_order(self) -> Iterable[nn.Module]:
        return self.blocks

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens_BLD)
        return normed

    def init_state(self, batch: int, text: int = 0) -> TransformerXLState:
        """The state before the first patch, for `step`. Raises `UsageError` where the model cannot run by steps.

        text: how many tokens of a text follow the patches.
        """
        if self.attention != "causal" or self.settings.readout == "class" or self.between is not None:
            raise UsageError("only a causal transformer_xl without class token and between can be run patch by patch")
        N = self.grid.size
        layout = Layout(self.grid, torch.arange(N, device=self.norm.weight.device)[None])
        plan = self.plan(layout.with_special(tuple(range(N, N + text))))
        return TransformerXLState(plan, [block.mixer.init_state(batch) for block in self.blocks])

    def step(self, token_BD: Tensor, state: TransformerXLState) -> tuple[Tensor, TransformerXLState]:
        """The next patch: its output, equal to `forward`'s at this slot (outside of training), and the new state."""
        layers = []
        for block, before in zip(self.blocks, state.layers, strict=True):
            token_BD, after = block.step(token_BD, before, state.plan)
            layers.append(after)
        return self.final_norm(token_BD), replace(state, layers=layers)

    def plan(self, layout: Layout | tuple[Layout, ...]) -> Plan:
        """Segments, mask, u, v and distances, once for all layers."""
        plan: Plan = self.blocks[0].mixer.plan(layout)
        return plan if self.relative is None else replace(plan, relative=self.relative(plan.segments))


_THEIRS = (
    (r"layers\.(\d+)\.dec_attn\.layer_norm\.", r"blocks.\1.norm1."),
    (r"layers\.(\d+)\.dec_attn\.", r"blocks.\1.mixer."),
    (r"layers\.(\d+)\.pos_ff\.layer_norm\.", r"blocks.\1.norm2."),
    (r"layers\.(\d+)\.pos_ff\.CoreNet\.0\.", r"blocks.\1.mlp.fc1."),
    (r"layers\.(\d+)\.pos_ff\.CoreNet\.3\.", r"blocks.\1.mlp.fc2."),
    (r"(r_w_bias|r_r_bias)$", r"relative.\1"),
    (r"pos_emb\.pos_emb$", r"relative.pos_emb"),
    (r"head\.head\.0\.", r"norm."),
)
_NOT_WANTED = ("word_emb.", "crit.", "coord_emb", "head.", "pos_emb.inv_freq")


def renamed(name: str) -> str | None:
    """Our name of a tensor of the authors' `MemTransformerLM` or of the released REOrder code; None for embeddings
    and heads, which are no part of a backbone. Names of our own stay as they are."""
    for theirs, ours in _THEIRS:
        if re.match(theirs, name):
            return re.sub(theirs, ours, name, count=1)
    return None if name.startswith(_NOT_WANTED) else name


def _absent_in(path: str) -> tuple[str, ...]:
    """What the authors' language model has no counterpart of: a class token and a norm after the last layer."""
    names = read_weights(path)
    language_model = "layers.0.dec_attn.qkv_net.weight" in names and "cls_token" not in names
    return ("cls_token", "norm.") if language_model else ()
