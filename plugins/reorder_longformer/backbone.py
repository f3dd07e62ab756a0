"""The Longformer as a backbone: the shared skeleton around its attention, with the norms before or after.

B images, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from reorder_core import Context
from reorder_core.sequence import Block, SequenceModel, initialise, seeded
from reorder_core.weights import load_weights
from reorder_longformer.hugging_face import Names
from reorder_longformer.mixer import LongformerMixer
from reorder_longformer.settings import LongformerSettings


class PostNormBlock(Block):
    """`norm1(x + mixer(x))`, then `norm2(x + mlp(x))`, as in the Longformer's and BERT's layers."""

    def forward(self, tokens_BLD: Tensor, plan: Any) -> Tensor:
        tokens_BLD = self.norm1(tokens_BLD + self.drop_path(self.drop(self.mixer(tokens_BLD, plan))))
        if self.mlp is not None and self.norm2 is not None:
            tokens_BLD = self.norm2(tokens_BLD + self.drop_path(self.mlp(tokens_BLD)))
        return tokens_BLD


class LongformerBackbone(SequenceModel):
    """See `LongformerSettings`. Parameters: `blocks.{k}.norm1/mixer/norm2/mlp`, `cls_token`, and `norm` at the end
    (norm pre) or `embed_norm` at the start (norm post).

    `weights` may be a file with the names of Hugging Face's `LongformerModel`: its layers go into a model with norm
    post. Raises `UsageError` where tensors are missing, unexpected or of another shape.
    """

    def __init__(self, settings: LongformerSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.pre = settings.norm == "pre"
        inner, width = context.changed(width=settings.width), settings.width
        make = Block if self.pre else PostNormBlock
        with seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            self.blocks = nn.ModuleList(
                make(self._mixer(inner), width, settings.mlp_ratio, rate, settings.dropout) for rate in rates
            )
            if self.pre:
                self.norm = nn.LayerNorm(width, eps=1e-6)
            else:
                self.embed_norm = nn.LayerNorm(width)
                _set_eps(self.blocks, self.embed_norm.eps)
            self.make_class_token()
            initialise(self)
        if settings.weights is not None:
            names = Names()
            load_weights(self, settings.weights, names.here, names.may_lack)

    def _mixer(self, context: Context) -> LongformerMixer:
        return LongformerMixer(self.settings, context, self.settings.has_global_tokens)

    def blocks_in_order(self) -> Iterable[nn.Module]:
        return self.blocks

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens_BLD) if self.pre else tokens_BLD
        return normed

    def _with_special(self, tokens_BND: Tensor, special: tuple[int, ...], text_BTD: Tensor | None = None) -> Tensor:
        tokens_BLD = super()._with_special(tokens_BND, special, text_BTD)
        return tokens_BLD if self.pre else self.embed_norm(tokens_BLD)


def _set_eps(module: nn.Module, eps: float) -> None:
    """The norms' eps of published weights."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps
