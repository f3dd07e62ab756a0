"""The slow, legible twin of the selective scan: the recurrence as the paper writes it, one step at a time.

What every fast form is tested against. It follows the form of mamba-ssm's own `selective_scan_ref` (all
B×D×L×N factors first, then a loop that indexes them), so its speed and memory are what that costs.

B images, L steps, D channels, N states.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def selective_scan_reference(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor | None = None,
    z_BLD: Tensor | None = None,
    delta_bias_D: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """y [B, L, D] in u's dtype; see `selective_scan` for the meaning of each argument.

    Gu & Dao 2023, equation 2a with A discretised by zero-order hold and B by Euler's rule (their section 3.6 and
    algorithm 2): h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t; y_t = C_t h_t + D u_t; then gated by silu(z_t).
    """
    work = torch.float64 if u_BLD.dtype == torch.float64 else torch.float32
    u, delta, B, C = (tensor.to(work) for tensor in (u_BLD, delta_BLD, B_BLN, C_BLN))
    if delta_bias_D is not None:
        delta = delta + delta_bias_D.to(work)
    if delta_softplus:
        delta = functional.softplus(delta)
    decay_BDLN = torch.exp(torch.einsum("bld,dn->bdln", delta, A_DN.to(work)))
    input_BDLN = torch.einsum("bld,bln,bld->bdln", delta, B, u)
    h_BDN = decay_BDLN.new_zeros(decay_BDLN.shape[0], decay_BDLN.shape[1], decay_BDLN.shape[3])
    outputs = []
    for t in range(u.shape[1]):
        h_BDN = decay_BDLN[:, :, t] * h_BDN + input_BDLN[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h_BDN, C[:, t]))
    y = torch.stack(outputs, dim=1)
    if D_D is not None:
        y = y + u * D_D.to(work)
    if z_BLD is not None:
        y = y * functional.silu(z_BLD.to(work))
    return y.to(u_BLD.dtype)
