"""The slow, legible twin of the state space dual: Mamba-2's recurrence as the paper writes it, one step at a time.

B images, L steps, H heads, P channels of a head, G groups of heads that share B and C, N states.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def state_space_dual_reference(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    z_BLHP: Tensor | None = None,
) -> Tensor:
    """y [B, L, H, P] in x's dtype; see `state_space_dual` for the meaning of each argument.

    Dao & Gu 2024, equation 16 (a scalar times the identity for A), discretised as in Mamba-1:
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t^T; y_t = C_t^T h_t + D x_t; then gated by silu(z_t).
    """
    work = torch.float64 if x_BLHP.dtype == torch.float64 else torch.float32
    x, dt, A = (tensor.to(work) for tensor in (x_BLHP, dt_BLH, A_H))
    heads = x.shape[2] // B_BLGN.shape[2]
    B, C = (tensor.to(work).repeat_interleave(heads, dim=2) for tensor in (B_BLGN, C_BLGN))
    decays, inputs = torch.exp(dt * A).unbind(1), (dt.unsqueeze(-1) * x).unbind(1)
    h_BHNP = x.new_zeros(*x.shape[:1], x.shape[2], B.shape[-1], x.shape[3])
    outputs = []
    for decay_BH, input_BHP, B_BHN, C_BHN in zip(decays, inputs, B.unbind(1), C.unbind(1), strict=True):
        h_BHNP = decay_BH[:, :, None, None] * h_BHNP + B_BHN.unsqueeze(-1) * input_BHP.unsqueeze(-2)
        outputs.append((C_BHN.unsqueeze(-2) @ h_BHNP).squeeze(-2))
    y = torch.stack(outputs, dim=1)
    if D_H is not None:
        y = y + D_H.to(work).unsqueeze(-1) * x
    if z_BLHP is not None:
        y = y * functional.silu(z_BLHP.to(work))
    return y.to(x_BLHP.dtype)
