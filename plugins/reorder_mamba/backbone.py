"""The Mamba backbone: a stack of pre-norm residual blocks, and where its summary is read.

B images, N patches or slots, L steps (patches and class token), D width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from reorder_core import Context, Features, Layout, Level, UsageError
from reorder_mamba.mixer import Mixer, MixerState
from reorder_mamba.selective_scan import why_not_mamba_ssm
from reorder_mamba.settings import MambaSettings

Between = Callable[[int, Tensor, Layout], tuple[Tensor, Layout]]


class Block(nn.Module):
    """`x + mixer(norm(x))`, the branch dropped for a whole image with probability `drop_path` while training."""

    def __init__(self, settings: MambaSettings, drop_path: float) -> None:
        super().__init__()
        self.norm = _norm(settings)
        self.mixer = Mixer(
            settings.width,
            settings.state,
            settings.conv,
            settings.expand,
            settings.dt_rank,
            bidirectional=settings.direction == "bidirectional",
            scan=settings.scan,
        )
        self.drop_path = drop_path

    def forward(self, tokens_BLD: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        branch_BLD: Tensor = self.mixer(self.norm(tokens_BLD), valid_BL)
        if self.training and self.drop_path:
            keep = 1.0 - self.drop_path
            keep_B11 = branch_BLD.new_empty(branch_BLD.shape[0], 1, 1).bernoulli_(keep)
            branch_BLD = branch_BLD * (keep_B11 / keep)
        return tokens_BLD + branch_BLD


class MambaBackbone(nn.Module):
    """See `MambaSettings`. Names of parameters follow mamba-ssm's MixerModel: `layers.0.mixer.in_proj.weight`, …

    `between(k, tokens_BND, layout)`, where it is set, is called after each block with the patches alone.
    """

    orders = 1
    order_sensitive = True

    def __init__(self, settings: MambaSettings, context: Context) -> None:
        super().__init__()
        if settings.scan == "mamba_ssm" and (missing := _no_compiled_scan()):
            raise UsageError(f"backbone.scan: mamba_ssm can not run: {missing}; choose auto or torch")
        self.settings = settings
        self.width = settings.width
        self.attention = "causal" if settings.direction == "causal" else "full"
        self.between: Between | None = None
        with _Seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            self.layers = nn.ModuleList(Block(settings, rate) for rate in rates)
            self.norm_f = _norm(settings)
            for block in self.layers:
                # GPT-2's rule for branches that add up, as MixerModel applies it: variance does not grow with depth.
                nn.init.kaiming_uniform_(block.mixer.out_proj.weight, a=5**0.5)
                with torch.no_grad():
                    block.mixer.out_proj.weight /= settings.depth**0.5
            if settings.readout == "class":
                self.class_token_D = nn.Parameter(0.02 * torch.randn(settings.width))
                self.class_token_D._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, tokens_BND: Tensor, layout: Layout | tuple[Layout, ...]) -> Features:
        """tokens_BND in reading order, positions added. The summary is read where the settings say."""
        layout = layout[0] if isinstance(layout, tuple) else layout
        place = self._class_place(tokens_BND.shape[1])
        tokens_BLD = self._with_class(tokens_BND, place)
        for k, block in enumerate(self.layers):
            tokens_BLD = block(tokens_BLD, _valid(layout, place))
            if self.between is not None:
                tokens_BND, layout = self.between(k, _without(tokens_BLD, place), layout)
                tokens_BLD = tokens_BND if place is None else _insert(tokens_BND, tokens_BLD[:, place], place)
        tokens_BLD = self.norm_f(tokens_BLD)
        tokens_BND = _without(tokens_BLD, place)
        summary_BD = tokens_BLD[:, place] if place is not None else self._readout(tokens_BND, layout.valid_BN)
        return Features((Level(tokens_BND, layout),), summary_BD)

    def init_state(self, batch: int) -> list[MixerState]:
        """The state before the first patch, for `step`. Raises UsageError where the model can not run by steps."""
        if self.attention != "causal" or self.settings.readout == "class":
            raise UsageError("only a causal mamba without class token can be run patch by patch")
        return [block.mixer.init_state(batch) for block in self.layers]

    def step(self, token_BD: Tensor, state: list[MixerState]) -> tuple[Tensor, list[MixerState]]:
        """The next patch: its output, equal to `forward`'s at this slot (outside of training), and the new state."""
        after = []
        for block, before in zip(self.layers, state, strict=True):
            branch_BD, new = block.mixer.step(block.norm(token_BD), before)
            token_BD = token_BD + branch_BD
            after.append(new)
        return self.norm_f(token_BD), after

    def _class_place(self, N: int) -> int | None:
        if self.settings.readout != "class":
            return None
        return {"start": 0, "middle": N // 2, "end": N}[self.settings.class_position or "end"]

    def _with_class(self, tokens_BND: Tensor, place: int | None) -> Tensor:
        if place is None:
            return tokens_BND
        return _insert(tokens_BND, self.class_token_D.to(tokens_BND.dtype).expand(tokens_BND.shape[0], -1), place)

    def _readout(self, tokens_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
        if self.settings.readout == "mean":
            if valid_BN is None:
                return tokens_BND.mean(dim=1)
            weight_BN1 = valid_BN.to(tokens_BND.dtype).unsqueeze(-1)
            return (tokens_BND * weight_BN1).sum(dim=1) / weight_BN1.sum(dim=1).clamp(min=1)
        if valid_BN is None:
            return tokens_BND[:, -1]
        slot_N = torch.arange(valid_BN.shape[1], device=valid_BN.device)
        last_B = torch.where(valid_BN, slot_N, 0).amax(dim=1)
        return tokens_BND.take_along_dim(last_B[:, None, None], dim=1)[:, 0]


def _norm(settings: MambaSettings) -> nn.Module:
    return nn.RMSNorm(settings.width, eps=1e-5) if settings.norm == "rms" else nn.LayerNorm(settings.width)


def _insert(tokens_BND: Tensor, token_BD: Tensor, place: int) -> Tensor:
    return torch.cat([tokens_BND[:, :place], token_BD.unsqueeze(1), tokens_BND[:, place:]], dim=1)


def _without(tokens_BLD: Tensor, place: int | None) -> Tensor:
    if place is None:
        return tokens_BLD
    if place == 0:
        return tokens_BLD[:, 1:]
    if place == tokens_BLD.shape[1] - 1:
        return tokens_BLD[:, :-1]
    return torch.cat([tokens_BLD[:, :place], tokens_BLD[:, place + 1 :]], dim=1)


def _valid(layout: Layout, place: int | None) -> Tensor | None:
    """Which steps are no padding, the class token included."""
    valid_BN = layout.valid_BN
    if valid_BN is None or place is None:
        return valid_BN
    return torch.cat([valid_BN[:, :place], torch.ones_like(valid_BN[:, :1]), valid_BN[:, place:]], dim=1)


class _Seeded:
    """Inside, torch's initialisers draw from a seed of the run's generator; outside, nothing of it is seen."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator = generator
        self._fork = nullcontext() if generator is None else torch.random.fork_rng(devices=[])

    def __enter__(self) -> None:
        self._fork.__enter__()
        if self._generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=self._generator)))

    def __exit__(self, *error: object) -> None:
        self._fork.__exit__(*error)  # type: ignore[arg-type]


def _no_compiled_scan() -> str:
    """Why mamba-ssm's compiled scan can run nowhere on this machine, or an empty string."""
    return why_not_mamba_ssm("cuda", torch.float32) if torch.cuda.is_available() else "there is no CUDA device here"
