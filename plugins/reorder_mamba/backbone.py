"""The Mamba backbone: a stack of pre-norm residual blocks, and where its summary is read.

B images, N patches or slots, S special tokens (class token or registers), L = N + S steps, D width, R registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from reorder_core import Context, Layout, SequenceModel, UsageError, load_weights, seeded
from reorder_core.sequence import refuse_blind_class_token
from reorder_mamba.mixer import Mixer, MixerState
from reorder_mamba.settings import StackSettings

_NOT_OURS = ("embedding.", "embeddings.", "lm_head.", "head.")  # of a language model, or of a classifier


class Block(nn.Module):
    """`x + mixer(norm(x))`, the branch dropped for a whole image with probability `drop_path` while training."""

    def __init__(self, settings: StackSettings, mixer: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm = _norm(settings)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens_BLD: Tensor, plan: Any) -> Tensor:
        output: Tensor = tokens_BLD + self.drop_path(self.mixer(self.norm(tokens_BLD), plan))
        return output


class MambaBackbone(SequenceModel):
    """See `MambaSettings`. Names of parameters follow mamba-ssm's MixerModel: `layers.0.mixer.in_proj.weight`, …

    Registers (Wang et al. 2024, Mamba-Reg, arXiv 2405.14858, section 3.2) stand evenly among the patches: register i
    of R after (i+1) N / (R+1) of them, rounded down, in a causal model after (i+1) N / R, so that the last has read
    them all. One linear layer takes each to D/R numbers; side by side and normed they are the summary. (The paper's
    larger models keep a larger share of each and so a longer summary; here a summary has width D.)
    """

    mixer_class: Callable[[Any, Context], nn.Module] = Mixer

    def __init__(self, settings: StackSettings, context: Context) -> None:
        super().__init__(settings, context)
        inner = context.changed(width=settings.width)
        self.attention = "causal" if settings.direction == "causal" else "full"
        with seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            self.layers = nn.ModuleList(
                Block(settings, type(self).mixer_class(settings, inner), rate) for rate in rates
            )
            self.norm_f = _norm(settings)
            for block in self.layers:
                # GPT-2's rule for branches that add up, as MixerModel applies it: variance does not grow with depth.
                nn.init.kaiming_uniform_(block.mixer.out_proj.weight, a=5**0.5)
                with torch.no_grad():
                    block.mixer.out_proj.weight /= settings.depth**0.5
            self.make_class_token()
            self._make_registers(settings)
        self.orders = self.layers[0].mixer.orders
        refuse_blind_class_token(self)
        if settings.weights is not None:
            load_weights(self, settings.weights, rename_weight, optional=("cls_token", "registers", "neck"))

    def _make_registers(self, settings: StackSettings) -> None:
        count, width = settings.register_count, settings.width
        if not count:
            return
        if width % count:
            raise UsageError(
                f"backbone.registers: a width of {width} is not divisible by {count} registers: change one of them"
            )
        self.registers = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, width), std=0.02))
        self.registers._no_weight_decay = True  # type: ignore[attr-defined]
        self.neck = nn.Linear(width, width // count, bias=False)
        nn.init.trunc_normal_(self.neck.weight, std=0.02)
        self.neck_norm = _norm(settings)

    def blocks_in_order(self) -> Iterable[nn.Module]:
        return self.layers

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        normed: Tensor = self.norm_f(tokens_BLD)
        return normed

    def special_tokens(self) -> Tensor | None:
        return self.registers if self.settings.register_count else super().special_tokens()

    def special_places(self, N: int) -> tuple[int, ...]:
        count = self.settings.register_count
        if self.settings.readout == "class":
            return ({"start": 0, "middle": N // 2, "end": N}[self.settings.class_position or "end"],)
        if not count:
            return ()
        if count > N:
            raise UsageError(f"backbone.registers: {count} registers have no place among {N} patches: take fewer")
        segments = count if self.attention == "causal" else count + 1
        return tuple((i + 1) * N // segments + i for i in range(count))

    def summarise(self, patches_BND: Tensor, special_BSD: Tensor, layout: Layout) -> Tensor:
        if not self.settings.register_count:
            return super().summarise(patches_BND, special_BSD, layout)
        summary_BD: Tensor = self.neck_norm(self.neck(special_BSD).flatten(1))
        return summary_BD

    def init_state(self, batch: int, text: int = 0) -> list[MixerState]:
        """The state before the first patch, for `step`. Raises UsageError where the model can not run by steps.

        text: how many tokens of a text follow the patches; a recurrence need not know.
        """
        if self.attention != "causal" or self.special_tokens() is not None or self.between is not None:
            raise UsageError("only a causal mamba without class token, registers and between can be run patch by patch")
        return [block.mixer.init_state(batch) for block in self.layers]

    def step(self, token_BD: Tensor, state: list[MixerState]) -> tuple[Tensor, list[MixerState]]:
        """The next patch: its output, equal to `forward`'s at this slot (outside of training), and the new state."""
        after = []
        for block, before in zip(self.layers, state, strict=True):
            branch_BD, new = block.mixer.step(block.norm(token_BD), before)
            token_BD = token_BD + branch_BD
            after.append(new)
        return self.norm_f(token_BD), after


def rename_weight(name: str) -> str | None:
    """Our name of a tensor of mamba-ssm's or transformers' models; None for words and heads."""
    name = name.removeprefix("backbone.")
    return None if name.startswith(_NOT_OURS) else name


def _norm(settings: StackSettings) -> nn.Module:
    return nn.RMSNorm(settings.width, eps=1e-5) if settings.norm == "rms" else nn.LayerNorm(settings.width)
