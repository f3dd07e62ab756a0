"""The network of the VQ-VAE: patches to latents and back, one latent a patch.

B images, C channels, H W pixels, D the width of a latent, h w the grid of patches.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from reorder_core.grid import prime_factors


def _stages(patch: int) -> list[int]:
    """By how much each stage shrinks a patch; of a single pixel one that keeps the size."""
    return prime_factors(patch) or [1]


def _convolution(inside: int, out: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Beyond its edge an image goes on as it ended: a constant image has the same latent everywhere."""
    return nn.Conv2d(inside, out, kernel, stride, padding, padding_mode="replicate" if padding else "zeros")


class Residual(nn.Module):
    """x + f(x), as in the paper (section 4.1): ReLU, 3x3, ReLU, 1x1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.body = nn.Sequential(
            nn.ReLU(), _convolution(width, inner, 3, padding=1), nn.ReLU(), _convolution(inner, width, 1)
        )

    def forward(self, maps_BWhw: Tensor) -> Tensor:
        moved: Tensor = self.body(maps_BWhw)
        return maps_BWhw + moved


def encoder(patch: int, channels: int, width: int, depth: int, code_width: int) -> nn.Sequential:
    """[B, C, H, W] to [B, D, H / patch, W / patch]: a strided convolution for each prime factor of the patch.

    With stride f, a kernel of f + 2 and one pixel around, the size is divided by f exactly. Where pixels are finer than
    patches, half the width does.
    """
    stages: list[nn.Module] = []
    factors = _stages(patch)
    widths = [channels, *[max(1, width // 2)] * (len(factors) - 1), width]
    for (inside, out), factor in zip(pairwise(widths), factors, strict=True):
        stages += [_convolution(inside, out, factor + 2, factor, padding=1), nn.ReLU()]
    stages[-1] = nn.Identity()  # each residual block begins with its own
    blocks = [Residual(width) for _ in range(depth)]
    return nn.Sequential(*stages, *blocks, nn.ReLU(), _convolution(width, code_width, 1))


def decoder(patch: int, channels: int, width: int, depth: int, code_width: int) -> nn.Sequential:
    """[B, D, h, w] to [B, C, h · patch, w · patch]: for each prime factor f a convolution makes f² pixels of each."""
    blocks = [Residual(width) for _ in range(depth)]
    factors = _stages(patch)[::-1]
    widths = [width, *[max(1, width // 2)] * (len(factors) - 1), channels]
    stages: list[nn.Module] = [_convolution(code_width, width, 3, padding=1), *blocks]
    for (inside, out), factor in zip(pairwise(widths), factors, strict=True):
        stages += [nn.ReLU(), _convolution(inside, out * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*stages)
