"""Which patches are masked: drawn for a training batch, a fixed function of the image for any other.

B images, N patches, R rows, C columns of the squares that are masked together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_core import Grid

# So that the masks of evaluation are not the first draws of generators seeded with small numbers elsewhere.
_EVALUATION = 7_919_000_003


class Masks:
    """Draws masks bool [B, N] of one share of the patches, in squares of `block` patches a side.

    The share is rounded to whole squares, of which at least one is masked and one is not. Where the grid does not
    divide by them, the squares at its right and lower edge are cut, and the number of patches varies a little.
    """

    def __init__(self, grid: Grid, share: float, block: int = 1) -> None:
        self.grid, self.block = grid, block
        self.rows, self.columns = -(-grid.rows // block), -(-grid.columns // block)
        squares = self.rows * self.columns
        self.masked = min(squares - 1, max(1, round(share * squares)))

    def drawn(self, images: int, generator: torch.Generator) -> Tensor:
        """Fresh masks from a generator on the CPU."""
        return self._lowest(torch.rand(images, self.rows * self.columns, generator=generator))

    def of_images(self, index_B: Tensor) -> Tensor:
        """The mask of each image by its number in the data set: the same in every epoch, order and company."""
        rows = []
        for number in index_B.tolist():
            generator = torch.Generator().manual_seed(_EVALUATION + int(number))
            rows.append(torch.rand(self.rows * self.columns, generator=generator))
        return self._lowest(torch.stack(rows)).to(index_B.device)

    def _lowest(self, value_BS: Tensor) -> Tensor:
        """The `masked` squares of the lowest values, as patches."""
        lowest_BK = value_BS.argsort(dim=1)[:, : self.masked]
        squares_BS = torch.zeros_like(value_BS, dtype=torch.bool).scatter(1, lowest_BK, True)
        squares_BRC = squares_BS.view(-1, self.rows, self.columns)
        patches = squares_BRC.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)
        return patches[:, : self.grid.rows, : self.grid.columns].reshape(len(value_BS), self.grid.size)


def covered(images_BCHW: Tensor, mask_BN: Tensor, fill_CPP: Tensor, grid: Grid) -> Tensor:
    """The images with the pixels `fill_CPP` in place of every masked patch, [B, C, H, W]."""
    B, C, H, W = images_BCHW.shape
    patch = fill_CPP.shape[-1]
    blocks = images_BCHW.reshape(B, C, grid.rows, patch, grid.columns, patch)
    hidden = mask_BN.view(B, 1, grid.rows, 1, grid.columns, 1)
    fill = fill_CPP.to(images_BCHW.dtype).view(1, C, 1, patch, 1, patch)
    return torch.where(hidden, fill, blocks).reshape(B, C, H, W)
