"""The Mamba-2 backbone: Mamba's stack of pre-norm residual blocks, with the mixer of Mamba-2.

B images, L steps (patches and special tokens), D width.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from reorder_core import Context, SequenceModel, load_weights, seeded
from reorder_core.sequence import refuse_blind_class_token
from reorder_mamba.backbone import MambaBackbone
from reorder_mamba.mamba2_mixer import Mamba2Mixer
from reorder_mamba.mamba2_settings import Mamba2Settings

_NOT_OURS = ("embedding.", "embeddings.", "lm_head.", "head.")  # of a language model, or of a classifier


class Mamba2Block(nn.Module):
    """`x + mixer(norm(x))`, the branch dropped for a whole image with probability `drop_path` while training."""

    def __init__(self, settings: Mamba2Settings, context: Context, drop_path: float) -> None:
        super().__init__()
        self.norm = _norm(settings)
        self.mixer = Mamba2Mixer(settings, context)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens_BLD: Tensor, plan: Any) -> Tensor:
        output: Tensor = tokens_BLD + self.drop_path(self.mixer(self.norm(tokens_BLD), plan))
        return output


class Mamba2Backbone(MambaBackbone):
    """See `Mamba2Settings`. Names of parameters follow mamba-ssm's MixerModel: `layers.0.mixer.in_proj.weight`, …

    Readouts, registers (Wang et al. 2024, Mamba-Reg, arXiv 2405.14858) and running by steps are those of Mamba-1's
    backbone; only the blocks are other ones.
    """

    def __init__(self, settings: Mamba2Settings, context: Context) -> None:
        SequenceModel.__init__(self, settings, context)  # not MambaBackbone's, which would make blocks of Mamba-1
        inner = context.changed(width=settings.width)
        self.attention = "causal" if settings.direction == "causal" else "full"
        with seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            self.layers = nn.ModuleList(Mamba2Block(settings, inner, rate) for rate in rates)
            self.norm_f = _norm(settings)
            for block in self.layers:
                # GPT-2's rule for branches that add up, as MixerModel applies it: variance does not grow with depth.
                nn.init.kaiming_uniform_(block.mixer.out_proj.weight, a=5**0.5)
                with torch.no_grad():
                    block.mixer.out_proj.weight /= settings.depth**0.5
            self.make_class_token()
            self._make_registers(settings)  # type: ignore[arg-type]
        self.orders = self.layers[0].mixer.orders
        refuse_blind_class_token(self)
        if settings.weights is not None:
            load_weights(self, settings.weights, rename_weight, optional=("cls_token", "registers", "neck"))


def rename_weight(name: str) -> str | None:
    """Our name of a tensor of mamba-ssm's or transformers' language model; None for words and heads."""
    name = name.removeprefix("backbone.")
    return None if name.startswith(_NOT_OURS) else name


def _norm(settings: Mamba2Settings) -> nn.Module:
    return nn.RMSNorm(settings.width, eps=1e-5) if settings.norm == "rms" else nn.LayerNorm(settings.width)
