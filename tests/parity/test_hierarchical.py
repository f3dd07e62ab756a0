"""Merging against loops over the slots of each image: tokens, gradients, and the layouts that come out."""

from __future__ import annotations

import pytest
import torch
from reorder_hierarchical import reference
from reorder_hierarchical.merging import Merge, side_by_side, side_by_side_on_grid

from reorder_core import Grid, Layout

GRIDS = [Grid(4, 4), Grid(3, 5), Grid(1, 7), Grid(2, 3, 2), Grid(5, 2)]


def layouts_of(grid):
    """One order for all, two for a batch, one for each image."""
    generator = torch.Generator().manual_seed(grid.size)
    perm_3N = torch.stack([torch.randperm(grid.size, generator=generator) for _ in range(3)])
    yield Layout(grid, perm_3N[:1])
    yield Layout(grid, perm_3N[:2], torch.tensor([1, 0, 1]))
    yield Layout(grid, perm_3N, torch.tensor([2, 0, 1]))


def order_of(layout, image):
    group = 0 if layout.group_B is None else int(layout.group_B[image])
    return layout.perm_GN[group].tolist()


CASES = [(grid, layout) for grid in GRIDS for layout in layouts_of(grid)]
EVERYWHERE = pytest.mark.parametrize(
    ("grid", "layout"), CASES, ids=[f"{grid}-{layout.perm_GN.shape[0]}" for grid, layout in CASES]
)


def tokens_of(grid):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, grid.size, 4, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("factor", [2, 3])
@EVERYWHERE
def test_neighbours_of_the_sequence(grid, layout, factor):
    tokens_BND = tokens_of(grid)
    found_BMD, (after,) = side_by_side(tokens_BND, (layout,), factor)
    expected_BMD = torch.stack([reference.merged_sequence(tokens_ND, factor) for tokens_ND in tokens_BND])
    assert torch.equal(found_BMD, expected_BMD)
    assert after.grid == Grid(1, found_BMD.shape[1])
    assert after.perm_GN.tolist() == [list(range(found_BMD.shape[1]))]
    same_gradient(found_BMD, expected_BMD, tokens_BND)


@pytest.mark.parametrize("factor", [2, 3])
@EVERYWHERE
def test_squares_of_the_grid(grid, layout, factor):
    tokens_BND = tokens_of(grid)
    found_BMD, (after,) = side_by_side_on_grid(tokens_BND, (layout,), factor)
    pairs = [
        reference.merged_grid(tokens_ND, order_of(layout, image), grid, factor)
        for image, tokens_ND in enumerate(tokens_BND)
    ]
    expected_BMD = torch.stack([tokens_MD for tokens_MD, _ in pairs])
    assert torch.equal(found_BMD, expected_BMD)
    for image, (_, order) in enumerate(pairs):
        assert order_of(after, image) == order
    same_gradient(found_BMD, expected_BMD, tokens_BND)


def same_gradient(found_BMD, expected_BMD, tokens_BND):
    weight_BMD = torch.randn_like(expected_BMD)
    found, expected = (
        torch.autograd.grad((merged_BMD * weight_BMD).sum(), tokens_BND, retain_graph=True)[0]
        for merged_BMD in (found_BMD, expected_BMD)
    )
    assert torch.equal(found, expected)


@EVERYWHERE
def test_a_further_order_reads_merged_neighbours_as_it_first_reaches_them(grid, layout):
    generator = torch.Generator().manual_seed(5)
    other = Layout.fixed(grid, torch.randperm(grid.size, generator=generator))
    _, (_, after) = side_by_side(tokens_of(grid), (layout, other), 2)
    for image in range(3):
        cell_of_patch = {patch: slot // 2 for slot, patch in enumerate(order_of(layout, image))}
        cells = [cell_of_patch[patch] for patch in order_of(other, image)]
        assert order_of(after, image) == list(dict.fromkeys(cells))


@pytest.mark.parametrize("by_grid", [False, True], ids=["sequence", "grid"])
def test_the_module_is_norm_and_projection_of_the_merged(by_grid):
    torch.manual_seed(0)
    grid = Grid(3, 5)
    layout = next(layouts_of(grid))
    module = Merge(4, 6, 2, by_grid).double()
    tokens_BND = tokens_of(grid)
    found_BMD, (after,) = module(tokens_BND, (layout,))
    for image in range(3):
        merged_MD = (
            reference.merged_grid(tokens_BND[image], order_of(layout, image), grid, 2)[0]
            if by_grid
            else reference.merged_sequence(tokens_BND[image], 2)
        )
        deviation_MD = merged_MD - merged_MD.mean(1, keepdim=True)
        normed_MD = deviation_MD / (deviation_MD.square().mean(1, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(found_BMD[image], normed_MD @ module.reduction.weight.T)
    assert after.grid == (Grid(2, 3) if by_grid else Grid(1, 8))


@pytest.mark.parametrize(
    ("merge", "grid"), [(side_by_side, Grid(1, 7)), (side_by_side_on_grid, Grid(3, 3))], ids=["sequence", "grid"]
)
def test_padding_is_zero_and_a_place_of_nothing_else_stays_padding(merge, grid):
    layout = Layout(grid, torch.arange(grid.size)[None], valid_BN=torch.arange(grid.size).expand(2, -1) < grid.size - 3)
    tokens_BND = torch.randn(2, grid.size, 4)
    merged_BMD, (after,) = merge(tokens_BND, (layout,), 2)
    zeroed_BMD, _ = merge(tokens_BND * layout.valid_BN[..., None], (Layout(grid, layout.perm_GN),), 2)
    assert torch.equal(merged_BMD, zeroed_BMD)
    assert torch.equal(after.valid_BN, merged_BMD.ne(0).any(2))
    assert not after.valid_BN.all()
