"""Pixels of patches as tensors: which pixels a patch has, and back again."""

from __future__ import annotations

import torch

from reorder_core import Grid
from reorder_core.patch_pixels import normalise_patches, patchify, unpatchify

GRID, PATCH = Grid(3, 4), 2


def test_pixels_of_a_patch_are_its_square_and_go_back_to_it():
    images = torch.arange(2 * 6 * 8.0).view(1, 2, 6, 8)
    pixels_BNP = patchify(images, GRID, PATCH)
    for patch in range(12):
        y, x = 2 * (patch // 4), 2 * (patch % 4)
        assert torch.equal(pixels_BNP[0, patch], images[0, :, y : y + 2, x : x + 2].permute(1, 2, 0).reshape(-1))
    assert torch.equal(unpatchify(pixels_BNP, GRID, PATCH), images)


def test_patches_are_normalised_and_a_flat_one_is_zero():
    pixels = torch.stack([torch.full((8,), 0.7), torch.arange(8.0)])
    flat, ramp = normalise_patches(pixels)
    torch.testing.assert_close(flat, torch.zeros(8), rtol=0, atol=1e-3)
    torch.testing.assert_close((ramp.mean(), ramp.var()), (torch.tensor(0.0), torch.tensor(1.0)))
