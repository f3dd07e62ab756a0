"""The Mamba mixer: projection, short convolution, selective scan, gate, projection.

Its parameters have the names and shapes of `mamba_ssm.Mamba`, and for further directions those of Vim's `Mamba` with
`bimamba_type="v2"` and ARM's with `"v3"`, so that weights go across both ways.

B images, L steps, D width, E inner width (expand × D), N states, R rank of the step-size projection, W taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Context, Layout
from reorder_mamba.causal_conv import causal_conv
from reorder_mamba.scans import SUFFIXES, Path, average, decay_name, directions, layouts_wanted, plan_paths
from reorder_mamba.selective_scan import check_backend, selective_scan
from reorder_mamba.settings import MambaMixerSettings

_SMALLEST_STEP, _LARGEST_STEP, _STEP_FLOOR = 1e-3, 1e-1, 1e-4


@dataclass(slots=True)
class MixerState:
    """What the next step needs of those before it: the last W-1 inputs of the convolution, and the hidden state."""

    inputs_BWE: Tensor
    hidden_BEN: Tensor


class Mixer(nn.Module):
    """One Mamba-1 mixer (Gu & Dao 2023, figure 3), in one or several directions (`scans.plan_paths`).

    All directions share `in_proj`, the gate and `out_proj`; each has its own convolution, x_proj, dt_proj, A and D,
    named with the suffix of its direction (`conv1d_c_b`, `A_c_b_log`). The outputs are averaged, as sums overflow
    under fp16. Raises UsageError for a scan that can not run here.
    """

    # The initialisation is Mamba's own: small weights and zero biases would undo the step sizes below.
    _keep_init = True
    order_sensitive = True

    def __init__(self, settings: MambaMixerSettings, context: Context) -> None:
        super().__init__()
        check_backend(settings.scan)
        width, inner = context.width, settings.expand * context.width
        self.settings = settings
        self.rank = math.ceil(width / 16) if isinstance(settings.dt_rank, str) else settings.dt_rank
        self.inner, self.state, self.taps = inner, settings.state, settings.conv
        self.attention = "causal" if settings.direction == "causal" else "full"
        self.orders = layouts_wanted(settings.direction, settings.order_count)
        self.suffixes = SUFFIXES[: directions(settings.direction, settings.order_count)]
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        for suffix in self.suffixes:
            self._add_direction(suffix)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def _add_direction(self, suffix: str) -> None:
        taps, inner = self.taps, self.inner
        self.add_module(f"conv1d{suffix}", nn.Conv1d(inner, inner, taps, groups=inner, padding=taps - 1))
        self.add_module(f"x_proj{suffix}", nn.Linear(inner, self.rank + 2 * self.state, bias=False))
        self.add_module(f"dt_proj{suffix}", _step_size_projection(self.rank, inner))
        A_log, D = _decay_and_skip(inner, self.state)
        self.register_parameter(decay_name(suffix), A_log)
        self.register_parameter(f"D{suffix}", D)

    def plan(self, layout: Layout | tuple[Layout, ...]) -> tuple[Path, ...]:
        """In which orders each direction reads, made once a forward pass for all blocks."""
        return plan_paths(self.settings.direction, layout, self.settings.order_count)

    def forward(self, tokens_BLD: Tensor, plan: tuple[Path, ...] = (Path(),)) -> Tensor:
        """[B, L, D] to [B, L, D]. Padding of the plan (False in its valid_BL) writes nothing to the state."""
        x_BLE, z_BLE = self.in_proj(tokens_BLD).chunk(2, dim=-1)
        if len(plan) == 1:  # the gate then goes into the scan, where compiled scans have it for free
            y_BLE = self._direction(plan[0].read(x_BLE), plan[0].read(z_BLE), plan[0], "")
            y_BLE = plan[0].put_back(y_BLE)
        else:
            read = zip(plan, self.suffixes, strict=True)
            outputs = [path.put_back(self._direction(path.read(x_BLE), None, path, suffix)) for path, suffix in read]
            y_BLE = average(outputs) * functional.silu(z_BLE)
        output: Tensor = self.out_proj(y_BLE)
        return output

    def _direction(self, x_BLE: Tensor, z_BLE: Tensor | None, path: Path, suffix: str) -> Tensor:
        """Convolution and scan of a sequence that stands in the order of its path."""
        conv1d, x_proj, dt_proj = (getattr(self, f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj"))
        if path.valid_BL is not None:
            x_BLE = x_BLE * path.valid_BL.unsqueeze(-1)
        x_BLE = functional.silu(causal_conv(x_BLE, conv1d.weight, conv1d.bias))
        if path.valid_BL is not None:
            x_BLE = x_BLE * path.valid_BL.unsqueeze(-1)
        dt_BLR, B_BLN, C_BLN = x_proj(x_BLE).split([self.rank, self.state, self.state], dim=-1)
        return selective_scan(
            x_BLE,
            functional.linear(dt_BLR, dt_proj.weight),
            -torch.exp(getattr(self, decay_name(suffix)).float()),
            B_BLN,
            C_BLN,
            getattr(self, f"D{suffix}"),
            z_BLD=z_BLE,
            delta_bias_D=dt_proj.bias,
            delta_softplus=True,
            backend=self.settings.scan,
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
