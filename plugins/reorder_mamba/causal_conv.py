"""The causal depthwise convolution before the scan.

B images, L steps, D channels, W taps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def causal_conv(x_BLD: Tensor, weight_D1W: Tensor, bias_D: Tensor) -> Tensor:
    """Each channel's weighted sum of this step and the W-1 before it (zeros before the first), plus its bias.

    On a CPU as W shifted multiply-adds over long contiguous rows, without the two transpositions that conv1d needs.
    """
    if x_BLD.device.type == "cpu" and not torch.compiler.is_compiling() and x_BLD.dtype == weight_D1W.dtype:
        y_BLD: Tensor = _ShiftedAdds.apply(x_BLD, weight_D1W, bias_D)
        return y_BLD
    W = weight_D1W.shape[-1]
    padded_BDL = functional.pad(x_BLD.mT, (W - 1, 0))
    return functional.conv1d(padded_BDL, weight_D1W, bias_D, groups=weight_D1W.shape[0]).mT


class _ShiftedAdds(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, weight_D1W: Tensor, bias_D: Tensor) -> Tensor:
        ctx.save_for_backward(x_BLD, weight_D1W)
        now_D, *earlier = _taps(weight_D1W)
        y_BLD = torch.addcmul(bias_D, x_BLD, now_D)
        for shift, tap_D in enumerate(earlier[: x_BLD.shape[1] - 1], start=1):
            y_BLD[:, shift:].addcmul_(x_BLD[:, :-shift], tap_D)
        return y_BLD

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BLD, weight_D1W = ctx.saved_tensors
        now_D, *earlier = _taps(weight_D1W)
        dweight_WD = torch.zeros(weight_D1W.shape[::2][::-1], dtype=dy_BLD.dtype)
        product_BLD = dy_BLD * x_BLD
        torch.sum(product_BLD, dim=(0, 1), out=dweight_WD[-1])
        dx_BLD = dy_BLD * now_D
        for shift, tap_D in enumerate(earlier[: x_BLD.shape[1] - 1], start=1):
            dx_BLD[:, :-shift].addcmul_(dy_BLD[:, shift:], tap_D)
            torch.mul(dy_BLD[:, shift:], x_BLD[:, :-shift], out=product_BLD[:, shift:])
            torch.sum(product_BLD[:, shift:], dim=(0, 1), out=dweight_WD[-1 - shift])
        return dx_BLD, dweight_WD.t().unsqueeze(1), dy_BLD.sum(dim=(0, 1))


def _taps(weight_D1W: Tensor) -> tuple[Tensor, ...]:
    """The weights of this step, of the step before, …: conv1d stores them from the earliest on."""
    return tuple(reversed(weight_D1W[:, 0].t().contiguous().unbind(0)))
