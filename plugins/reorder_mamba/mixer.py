"""The Mamba mixer: projection, short convolution, selective scan, gate, projection.

Its parameters have the names and shapes of `mamba_ssm.Mamba` (and, for the second direction, of Vim's `Mamba` with
`bimamba_type="v2"`), so that weights go across both ways.

B images, L steps, D width, E inner width (expand × D), N states, R rank of the step-size projection, W taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_mamba.causal_conv import causal_conv
from reorder_mamba.selective_scan import Backend, selective_scan

_SMALLEST_STEP, _LARGEST_STEP, _STEP_FLOOR = 1e-3, 1e-1, 1e-4


@dataclass(slots=True)
class MixerState:
    """What the next step needs of those before it: the last W-1 inputs of the convolution, and the hidden state."""

    inputs_BWE: Tensor
    hidden_BEN: Tensor


class Mixer(nn.Module):
    """One Mamba-1 mixer (Gu & Dao 2023, figure 3), causal or bidirectional.

    Bidirectional (Zhu et al. 2024, Vision Mamba): both directions share `in_proj` and `out_proj`; the second has its
    own convolution, x_proj, dt_proj, A and D (`…_b`). The two outputs are averaged, as sums overflow under fp16.
    """

    def __init__(
        self,
        width: int,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        bidirectional: bool = False,
        scan: Backend = "auto",
    ) -> None:
        super().__init__()
        inner = expand * width
        self.rank = math.ceil(width / 16) if isinstance(dt_rank, str) else dt_rank
        self.inner, self.state, self.taps, self.scan = inner, state, conv, scan
        self.bidirectional = bidirectional
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv, groups=inner, padding=conv - 1)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = _step_size_projection(self.rank, inner)
        self.A_log, self.D = _decay_and_skip(inner, state)
        if bidirectional:
            self.conv1d_b = nn.Conv1d(inner, inner, conv, groups=inner, padding=conv - 1)
            self.x_proj_b = nn.Linear(inner, self.rank + 2 * state, bias=False)
            self.dt_proj_b = _step_size_projection(self.rank, inner)
            self.A_b_log, self.D_b = _decay_and_skip(inner, state)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, tokens_BLD: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """[B, L, D] to [B, L, D]. valid_BL: False where a step is padding, which then writes nothing to the state."""
        x_BLE, z_BLE = self.in_proj(tokens_BLD).chunk(2, dim=-1)
        y_BLE = self._direction(x_BLE, z_BLE, valid_BL, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        if self.bidirectional:
            valid = None if valid_BL is None else valid_BL.flip(1)
            back_BLE = self._direction(
                x_BLE.flip(1),
                z_BLE.flip(1),
                valid,
                self.conv1d_b,
                self.x_proj_b,
                self.dt_proj_b,
                self.A_b_log,
                self.D_b,
            )
            y_BLE = torch.lerp(y_BLE, back_BLE.flip(1), 0.5)
        output: Tensor = self.out_proj(y_BLE)
        return output

    def _direction(
        self,
        x_BLE: Tensor,
        z_BLE: Tensor,
        valid_BL: Tensor | None,
        conv1d: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
        A_log: Tensor,
        D: Tensor,
    ) -> Tensor:
        if valid_BL is not None:
            x_BLE = x_BLE * valid_BL.unsqueeze(-1)
        assert conv1d.bias is not None
        x_BLE = functional.silu(causal_conv(x_BLE, conv1d.weight, conv1d.bias))
        if valid_BL is not None:
            x_BLE = x_BLE * valid_BL.unsqueeze(-1)
        dt_BLR, B_BLN, C_BLN = x_proj(x_BLE).split([self.rank, self.state, self.state], dim=-1)
        return selective_scan(
            x_BLE,
            functional.linear(dt_BLR, dt_proj.weight),
            -torch.exp(A_log.float()),
            B_BLN,
            C_BLN,
            D,
            z_BLD=z_BLE,
            delta_bias_D=dt_proj.bias,
            delta_softplus=True,
            backend=self.scan,
        )

    def init_state(self, batch: int) -> MixerState:
        """The state before the first step: all zeros."""
        weight = self.in_proj.weight
        return MixerState(
            weight.new_zeros(batch, self.taps - 1, self.inner), weight.new_zeros(batch, self.inner, self.state)
        )

    def step(self, token_BD: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One step of the causal recurrence: what `forward` gives at this place, from the state before it."""
        x_BE, z_BE = self.in_proj(token_BD).chunk(2, dim=-1)
        window_BWE = torch.cat([state.inputs_BWE, x_BE.unsqueeze(1)], dim=1)
        x_BE = functional.silu((window_BWE * self.conv1d.weight[:, 0].t()).sum(1) + self.conv1d.bias)
        dt_BR, B_BN, C_BN = self.x_proj(x_BE).split([self.rank, self.state, self.state], dim=-1)
        delta_BE = functional.softplus(self.dt_proj(dt_BR))
        decay_BEN = torch.exp(delta_BE.unsqueeze(-1) * -torch.exp(self.A_log.float()))
        hidden_BEN = decay_BEN * state.hidden_BEN + (delta_BE * x_BE).unsqueeze(-1) * B_BN.unsqueeze(1)
        y_BE = (hidden_BEN * C_BN.unsqueeze(1)).sum(-1) + self.D * x_BE
        return self.out_proj(y_BE * functional.silu(z_BE)), MixerState(window_BWE[:, 1:], hidden_BEN)


def _step_size_projection(rank: int, inner: int) -> nn.Linear:
    """dt_proj, started so that softplus of its bias is log-uniform in [0.001, 0.1] (section 3.6 of the paper)."""
    projection = nn.Linear(rank, inner)
    with torch.no_grad():
        projection.weight.uniform_(-(rank**-0.5), rank**-0.5)
        log_step = torch.empty(inner).uniform_(math.log(_SMALLEST_STEP), math.log(_LARGEST_STEP))
        step = log_step.exp().clamp(min=_STEP_FLOOR)
        projection.bias.copy_(step + torch.log(-torch.expm1(-step)))
    return projection


def _decay_and_skip(inner: int, state: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A_log = log(1 … N) in every channel (S4D-real), and D = 1; neither is decayed by the optimiser."""
    A_log = nn.Parameter(torch.arange(1, state + 1, dtype=torch.float32).log().repeat(inner, 1))
    D = nn.Parameter(torch.ones(inner))
    for parameter in (A_log, D):
        parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return A_log, D
