"""The pixels of patches as tensors: what tasks that predict pixels compare with (`patches.py` cuts arrays of NumPy).

B images, C channels, H W pixels, N patches, P = side² · C pixels of a patch.
"""

from __future__ import annotations

from torch import Tensor

from reorder_core.grid import Grid


def patchify(images_BCHW: Tensor, grid: Grid, patch: int) -> Tensor:
    """[B, C, H, W] to [B, N, P] in patch order: the pixels of a patch row by row, channels innermost."""
    B, C = images_BCHW.shape[:2]
    blocks = images_BCHW.reshape(B, C, grid.rows, patch, grid.columns, patch)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(B, grid.size, patch * patch * C)


def unpatchify(pixels_BNP: Tensor, grid: Grid, patch: int) -> Tensor:
    """[B, N, P] in patch order to [B, C, H, W]: `patchify` undone; C follows from P."""
    blocks = pixels_BNP.reshape(len(pixels_BNP), grid.rows, grid.columns, patch, patch, -1)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(len(blocks), -1, grid.rows * patch, grid.columns * patch)


def normalise_patches(pixels_BNP: Tensor) -> Tensor:
    """Each patch with mean 0 and variance 1 (He et al. 2022, MAE, arXiv 2111.06377, section 3); a flat patch is 0.

    A patch of a single pixel has no variance: NaN.
    """
    mean_BN1 = pixels_BNP.mean(dim=-1, keepdim=True)
    return (pixels_BNP - mean_BN1) / (pixels_BNP.var(dim=-1, keepdim=True) + 1e-6).sqrt()
