"""Attention rollout: how much of each patch has reached the summary, by the attention weights of all blocks.

B images, N patches, L tokens (patches and special tokens), D width, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reorder_core import Layout, SequenceModel, UsageError
from reorder_core.layout import take_apart
from reorder_core.opened import Opened
from reorder_core.sequence import Reading

_SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)


class AttentionWeights(TorchFunctionMode):
    """While it is entered: every table of attention weights that is computed, mean over heads, [B, L, L], in turn.

    It listens to torch's `scaled_dot_product_attention`, and to a softmax that makes tables [B, H, L, L].
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self.seen.append(_weights(*args, **kwargs).mean(dim=1))
        elif func in _SOFTMAX and answer.ndim == 4 and answer.shape[2] == answer.shape[3]:
            self.seen.append(answer.mean(dim=1))
        return answer


def _weights(
    query_BHLE: Tensor,
    key_BHLE: Tensor,
    value_BHLE: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The weights that `scaled_dot_product_attention` mixes by, [B, H, L, L], as its documentation defines them."""
    if enable_gqa:
        key_BHLE = key_BHLE.repeat_interleave(query_BHLE.shape[1] // key_BHLE.shape[1], dim=1)
    scale = query_BHLE.shape[-1] ** -0.5 if scale is None else scale
    score_BHLL = scale * query_BHLE.float() @ key_BHLE.float().transpose(-1, -2)
    if is_causal:
        score_BHLL = score_BHLL.masked_fill(torch.ones_like(score_BHLL, dtype=torch.bool).triu(1), -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        score_BHLL = score_BHLL.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        score_BHLL = score_BHLL + attn_mask
    return score_BHLL.softmax(dim=-1)


@torch.no_grad()
def rollout(opened: Opened, images_BCHW: Tensor, layout: Layout) -> Tensor:
    """Abnar & Zuidema 2020, equation 1: the product of all blocks' (A + I) / 2, A the weights' mean over heads, read
    where the model reads its summary; what falls on special tokens is left out. [B, N] in patch order, each sum 1.

    Raises `UsageError` for a model whose blocks do not look at all tokens at once.
    """
    backbone, name = opened.model.backbone, opened.recipe.backbone.ref.name
    _refuse_without_full_attention(backbone, name)
    tokens_BND, layout = opened.model.ordered(images_BCHW, layout)  # type: ignore[assignment]
    with AttentionWeights() as weights:
        reading = backbone.advance(backbone.start(tokens_BND, layout))
    length = reading.tokens_BLD.shape[1]
    whole = [weight_BLL for weight_BLL in weights.seen if weight_BLL.shape[-2:] == (length, length)]
    if not whole or len(whole) != reading.done or len(weights.seen) != len(whole):
        raise UsageError(
            _no_rollout(
                f"the {reading.done} blocks of '{name}' showed {len(whole)} tables of attention over all tokens"
            )
        )
    special = backbone.special_places(tokens_BND.shape[1])
    flow_BL = _where_read(backbone, reading, special)
    for weight_BLL in reversed(whole):
        flow_BL = (flow_BL + torch.einsum("bl,blm->bm", flow_BL, weight_BLL)) / 2
    flow_BN = take_apart(flow_BL[:, :, None], special)[0]
    flow_BN = layout.restore(flow_BN)[:, :, 0]
    return flow_BN / flow_BN.sum(dim=1, keepdim=True)


def _refuse_without_full_attention(backbone: Any, name: str) -> None:
    # one with a forward of its own merges tokens on the way, and has no table over all of them
    plain = isinstance(backbone, SequenceModel) and type(backbone).forward is SequenceModel.forward
    if not plain or backbone.attention != "full" or backbone.orders > 1:
        said = f"attention: {backbone.attention}" if plain else "its own forward pass"
        raise UsageError(_no_rollout(f"the backbone '{name}' ({said}) does not look at all tokens in every block"))
    if backbone.between is not None:
        raise UsageError(_no_rollout(f"the backbone '{name}' moves its tokens between the blocks"))


def _no_rollout(reason: str) -> str:
    return f"{reason}, so that there is no attention rollout of it: use gradient or occlusion"


def _where_read(backbone: SequenceModel, reading: Reading, special: tuple[int, ...]) -> Tensor:
    """How much each token after the last block has a part in the summary, [B, L], sum 1: 1 at the class token, or the
    same at all patches, or 1 at the last. Found by the gradient of the readout, so that any readout will do."""
    with torch.enable_grad():
        final_BLD = backbone.final_norm(reading.tokens_BLD).detach().requires_grad_()
        patches_BND, special_BSD = take_apart(final_BLD, special)
        summary_BD = backbone.summarise(patches_BND, special_BSD, reading.layouts[0].with_special())
        probe_D = torch.linspace(-1, 2, summary_BD.shape[1], device=summary_BD.device)
        (gradient_BLD,) = torch.autograd.grad((summary_BD * probe_D).sum(), final_BLD)
    part_BL = gradient_BLD.float().norm(dim=2)
    share_BL: Tensor = part_BL / part_BL.sum(dim=1, keepdim=True)
    return share_BL
