"""What stands for the distance between two tokens, and the biases u and v (Dai et al. 2019, section 3.3).

C rows of the table of distances, D width, H heads, E width of a head, M memory, T segment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import UsageError
from reorder_transformer_xl.segments import Segments


def sinusoid(distance_C: Tensor, width: int) -> Tensor:
    """[C, D]: the sines, then the cosines, of the distances at frequencies 10000^(-2k/D) (Vaswani et al. 2017)."""
    frequency_F = 10000.0 ** (-torch.arange(0, width, 2, device=distance_C.device, dtype=torch.float32) / width)
    angle_CF = distance_C.float().unsqueeze(1) * frequency_F
    return torch.cat([angle_CF.sin(), angle_CF.cos()], dim=1)[:, :width]


def descending(segments: Segments, causal: bool, device: torch.device) -> Tensor:
    """The distances that queries meet, from M + T - 1 down to 0, or to 1 - T where they also look ahead."""
    last = 0 if causal else 1 - segments.size
    return torch.arange(segments.keys - 1, last - 1, -1, device=device)


class RelativePositions(nn.Module):
    """u (`r_w_bias`), v (`r_r_bias`), and the vectors of all distances: sinusoids, or a learned table (`pos_emb`).

    table: segments of the longest sequence, where the table is learned; None for sinusoids.
    """

    def __init__(self, width: int, heads: int, causal: bool, table: Segments | None) -> None:
        super().__init__()
        self.width, self.causal = width, causal
        self.r_w_bias = nn.Parameter(0.02 * torch.randn(heads, width // heads))
        self.r_r_bias = nn.Parameter(0.02 * torch.randn(heads, width // heads))
        self.pos_emb: nn.Parameter | None = None
        if table is not None:
            self.behind = table.keys
            rows = table.keys if causal else table.keys + table.size - 1
            self.pos_emb = nn.Parameter(0.02 * torch.randn(rows, width))
        for parameter in self.parameters():
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
        """u_HE, v_HE, and the distances' vectors [C, D]: those of `descending`, then a row of zeros.

        The row of zeros gives `relative_shift` the room that it needs.
        """
        distance_C = descending(segments, self.causal, self.r_w_bias.device)
        vectors_CD = sinusoid(distance_C, self.width) if self.pos_emb is None else self._learned(segments, distance_C)
        return self.r_w_bias, self.r_r_bias, functional.pad(vectors_CD, (0, 0, 0, 1))

    def _learned(self, segments: Segments, distance_C: Tensor) -> Tensor:
        """Rows 0, 1, 2, … are the distances to tokens behind; rows -1, -2, … those to tokens ahead."""
        assert self.pos_emb is not None
        rows, ahead = self.pos_emb.shape[0], 0 if self.causal else segments.size - 1
        if segments.keys > self.behind or ahead > rows - self.behind:
            raise UsageError(
                f"distances: learned has vectors for {self.behind} tokens behind and {rows - self.behind} ahead, and "
                f"this sequence needs {segments.keys} and {ahead}: give segment a number, or choose sinusoid"
            )
        return self.pos_emb[distance_C % rows]
