"""The Mamba-2 mixer: projection, short convolution, state space dual, gated norm, projection.

Its parameters have the names and shapes of `mamba_ssm.Mamba2` (and of transformers' `Mamba2Mixer`), so that weights go
across both ways; further directions have names with the suffixes of Mamba-1's.

B images, L steps, D width, H heads, P channels of a head, E = H P inner width, G groups, N states, W taps,
X = E + 2 G N channels of the convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Context, Layout, UsageError
from reorder_mamba.causal_conv import causal_conv
from reorder_mamba.mamba2_settings import Mamba2MixerSettings, why_not_heads
from reorder_mamba.scans import SUFFIXES, Path, average, decay_name, directions, layouts_wanted, plan_paths
from reorder_mamba.state_space_dual import check_backend, state_space_dual

_SMALLEST_STEP, _LARGEST_STEP, _STEP_FLOOR = 1e-3, 1e-1, 1e-4
_SLOWEST_DECAY, _FASTEST_DECAY = 1.0, 16.0


@dataclass(slots=True)
class Mamba2State:
    """What the next step needs of those before it: the last W-1 inputs of the convolution, and the hidden state."""

    inputs_BWX: Tensor
    hidden_BHNP: Tensor


class GatedNorm(nn.Module):
    """`rms_norm(y silu(z)) weight`, normed in float32 over each group's channels: gated before the norm, eps 1e-5."""

    def __init__(self, inner: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(inner))

    def forward(self, y_BLE: Tensor, z_BLE: Tensor) -> Tensor:
        gated = _wide(y_BLE) * functional.silu(_wide(z_BLE))
        share = gated.shape[-1] // self.groups
        normed = functional.rms_norm(gated.unflatten(-1, (self.groups, share)), (share,), eps=1e-5).flatten(-2)
        return (normed * self.weight).to(y_BLE.dtype)


class Mamba2Mixer(nn.Module):
    """One Mamba-2 mixer (Dao & Gu 2024, section 7 and figure 6), in one or several directions (`scans.plan_paths`).

    All directions share `in_proj` (which gives x, B, C, dt and the gate at once), the gated norm and `out_proj`; each
    has its own convolution, step-size bias, A and D, named with the suffix of its direction (`conv1d_b`, `dt_bias_b`,
    `A_b_log`, `D_b`). Their outputs are averaged before the norm, as sums overflow under fp16.
    Raises UsageError for heads that do not divide the width, groups that do not divide the heads, and a scan that can
    not run here.
    """

    # The initialisation is Mamba's own, as in Mamba-1's mixer.
    _keep_init = True
    order_sensitive = True

    def __init__(self, settings: Mamba2MixerSettings, context: Context) -> None:
        super().__init__()
        check_backend(settings.scan)
        if said := why_not_heads(context.width, settings):
            raise UsageError(f"{said[0]}: {said[1]}")
        width, inner = context.width, settings.expand * context.width
        self.settings = settings
        self.inner, self.state, self.groups, self.taps = inner, settings.state, settings.groups, settings.conv
        self.heads = inner // settings.head_width
        self.channels = inner + 2 * settings.groups * settings.state
        self.attention = "causal" if settings.direction == "causal" else "full"
        self.orders = layouts_wanted(settings.direction, settings.order_count)
        self.suffixes = SUFFIXES[: directions(settings.direction, settings.order_count)]
        self.in_proj = nn.Linear(width, inner + self.channels + self.heads, bias=False)
        for suffix in self.suffixes:
            self._add_direction(suffix)
        self.norm = GatedNorm(inner, settings.groups)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def _add_direction(self, suffix: str) -> None:
        conv1d = nn.Conv1d(self.channels, self.channels, self.taps, groups=self.channels, padding=self.taps - 1)
        self.add_module(f"conv1d{suffix}", conv1d)
        for name, values_H in (
            (f"dt_bias{suffix}", _step_bias(self.heads)),
            (decay_name(suffix), torch.empty(self.heads).uniform_(_SLOWEST_DECAY, _FASTEST_DECAY).log()),
            (f"D{suffix}", torch.ones(self.heads)),
        ):
            parameter = nn.Parameter(values_H)
            parameter._no_weight_decay = True  # type: ignore[attr-defined]
            self.register_parameter(name, parameter)

    def plan(self, layout: Layout | tuple[Layout, ...]) -> tuple[Path, ...]:
        """In which orders each direction reads, made once a forward pass for all blocks."""
        return plan_paths(self.settings.direction, layout, self.settings.order_count)

    def forward(self, tokens_BLD: Tensor, plan: tuple[Path, ...] = (Path(),)) -> Tensor:
        """[B, L, D] to [B, L, D]. Padding of the plan (False in its valid_BL) neither writes nor decays the state."""
        z_BLE, x_BLX, dt_BLH = self.in_proj(tokens_BLD).split([self.inner, self.channels, self.heads], dim=-1)
        read = zip(plan, self.suffixes, strict=True)
        outputs = [path.put_back(self._direction(path.read(x_BLX), path.read(dt_BLH), path, end)) for path, end in read]
        output: Tensor = self.out_proj(self.norm(average(outputs), z_BLE))
        return output

    def _direction(self, x_BLX: Tensor, dt_BLH: Tensor, path: Path, suffix: str) -> Tensor:
        """Convolution and scan of a sequence that stands in the order of its path, [B, L, E]."""
        conv1d = getattr(self, f"conv1d{suffix}")
        step_BLH = functional.softplus(_wide(dt_BLH) + _wide(getattr(self, f"dt_bias{suffix}")))
        if path.valid_BL is not None:
            x_BLX = x_BLX * path.valid_BL.unsqueeze(-1)
            step_BLH = step_BLH * path.valid_BL.unsqueeze(-1)
        x_BLX = functional.silu(causal_conv(x_BLX, conv1d.weight, conv1d.bias))
        x_BLHP, B_BLGN, C_BLGN = self._apart(x_BLX)
        y_BLHP = state_space_dual(
            x_BLHP,
            step_BLH,
            -torch.exp(_wide(getattr(self, decay_name(suffix)))),
            B_BLGN,
            C_BLGN,
            getattr(self, f"D{suffix}"),
            chunk=self.settings.chunk,
            backend=self.settings.scan,
        )
        return y_BLHP.flatten(-2)

    def _apart(self, x_X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the convolution gives, [..., X], as x [..., H, P], B and C [..., G, N]."""
        x, B, C = x_X.split([self.inner, self.groups * self.state, self.groups * self.state], dim=-1)
        return x.unflatten(-1, (self.heads, -1)), B.unflatten(-1, (self.groups, -1)), C.unflatten(-1, (self.groups, -1))

    def init_state(self, batch: int) -> Mamba2State:
        """The state before the first step: all zeros."""
        weight = self.in_proj.weight
        return Mamba2State(
            weight.new_zeros(batch, self.taps - 1, self.channels),
            weight.new_zeros(batch, self.heads, self.state, self.settings.head_width),
        )

    def step(self, token_BD: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        """One step of the causal recurrence: what `forward` gives at this place, from the state before it."""
        z_BE, x_BX, dt_BH = self.in_proj(token_BD).split([self.inner, self.channels, self.heads], dim=-1)
        window_BWX = torch.cat([state.inputs_BWX, x_BX.unsqueeze(1)], dim=1)
        x_BX = functional.silu((window_BWX * self.conv1d.weight[:, 0].t()).sum(1) + self.conv1d.bias)
        x_BHP, B_BGN, C_BGN = self._apart(x_BX)
        B_BHN, C_BHN = (one.repeat_interleave(self.heads // self.groups, dim=1) for one in (B_BGN, C_BGN))
        step_BH = functional.softplus(dt_BH + self.dt_bias)
        decay_BH = torch.exp(step_BH * -torch.exp(self.A_log.float()))
        written_BHNP = B_BHN.unsqueeze(-1) * (step_BH.unsqueeze(-1) * x_BHP).unsqueeze(-2)
        hidden_BHNP = decay_BH[:, :, None, None] * state.hidden_BHNP + written_BHNP
        y_BHP = (C_BHN.unsqueeze(-1) * hidden_BHNP).sum(-2) + self.D.unsqueeze(-1) * x_BHP
        return self.out_proj(self.norm(y_BHP.flatten(-2), z_BE)), Mamba2State(window_BWX[:, 1:], hidden_BHNP)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _step_bias(heads: int) -> Tensor:
    """[H]: softplus of it is log-uniform in [0.001, 0.1], as in Mamba-1."""
    log_step = torch.empty(heads).uniform_(math.log(_SMALLEST_STEP), math.log(_LARGEST_STEP))
    step = log_step.exp().clamp(min=_STEP_FLOOR)
    return step + torch.log(-torch.expm1(-step))
