"""Patches, positions and order meet in the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reorder_core import Draw, Features, Grid, Layout, Level, UsageError
from reorder_core.model import Model, sincos2d


class Blind(nn.Module):
    """A backbone that does not care about the order: the mean of a token-wise network."""

    attention, order_sensitive, orders = "full", False, 1

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, tokens_BND, layout):
        tokens_BND = self.mix(tokens_BND)
        return Features((Level(tokens_BND, layout),), tokens_BND.mean(1))


class Echo(Blind):
    """Hands its tokens back as they came in."""

    def forward(self, tokens_BND, layout):
        return Features((Level(tokens_BND, layout),), tokens_BND[:, -1])


def make(backbone, grid=None, patch=2, channels=1, **options) -> Model:
    torch.manual_seed(0)
    return Model(backbone, grid or Grid(2, 3), patch, channels, **options)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["learned", "sincos2d"]),
)
def test_an_insensitive_backbone_does_not_see_the_order(rows, columns, seed, kind):
    grid = Grid(rows, columns)
    model = make(Blind(), grid, positions=kind)
    generator = torch.Generator().manual_seed(seed)
    images_BCHW = torch.randn(3, 1, rows * 2, columns * 2, generator=generator)
    perm_GN = torch.stack([torch.randperm(grid.size, generator=generator) for _ in range(2)])
    plain = model(images_BCHW, Layout.fixed(grid, torch.arange(grid.size))).summary_BD
    grouped = model(images_BCHW, Layout(grid, perm_GN, torch.tensor([0, 1, 0]))).summary_BD
    torch.testing.assert_close(grouped, plain, atol=1e-5, rtol=1e-4)


def test_positions_travel_with_the_patch_also_through_a_soft_order():
    grid = Grid(2, 3)
    model = make(Echo())
    perm_N = torch.tensor([5, 0, 3, 1, 4, 2])
    images_BCHW = torch.randn(2, 1, 4, 6)
    tokens_BND = model.embed(images_BCHW)
    hard = model(images_BCHW, Layout.fixed(grid, perm_N)).levels[0].tokens_BND
    torch.testing.assert_close(hard, tokens_BND[:, perm_N])
    matrix_NN = torch.eye(6)[perm_N].requires_grad_()
    draw = Draw(perm_N[None], torch.zeros(2, dtype=torch.long), soft=lambda tokens: matrix_NN @ tokens)
    soft = model(images_BCHW, draw).levels[0]
    torch.testing.assert_close(soft.tokens_BND, hard)
    assert torch.equal(soft.layout.perm_GN[0], perm_N)
    soft.tokens_BND.sum().backward()
    assert matrix_NN.grad is not None


def test_positions_that_follow_the_slot_are_added_after_ordering():
    model = make(Echo(), follow="slot")
    perm_N = torch.tensor([5, 0, 3, 1, 4, 2])
    images_BCHW = torch.randn(2, 1, 4, 6)
    read = model(images_BCHW, Layout.fixed(Grid(2, 3), perm_N)).levels[0].tokens_BND
    torch.testing.assert_close(read, model.embed(images_BCHW)[:, perm_N] + model.position_ND)


def test_no_positions_and_their_decay():
    assert make(Echo(), positions="none").position_ND is None
    assert make(Echo()).position_ND._no_weight_decay
    assert "position_ND" not in make(Echo(), positions="sincos2d").state_dict()


def test_sincos2d_tells_every_place_apart_and_says_what_it_needs():
    table_ND = sincos2d(Grid(7, 5), 16)
    assert torch.pdist(table_ND).min() > 0.05
    with pytest.raises(UsageError, match="divisible by 4"):
        sincos2d(Grid(2, 2), 6)


def test_patches_are_cut_row_by_row():
    model = make(Echo(), positions="none")
    nn.init.ones_(model.embedding.project.weight)
    nn.init.zeros_(model.embedding.project.bias)
    number_HW = torch.arange(6.0).view(2, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)
    tokens_BND = model.embed(number_HW[None, None])
    torch.testing.assert_close(tokens_BND[0, :, 0], torch.arange(6.0) * 4)


def test_images_of_another_size_than_described():
    with pytest.raises(UsageError, match="4x4 pixels, but it described them as 4x6"):
        make(Echo())(torch.zeros(1, 1, 4, 4), Layout.fixed(Grid(2, 3), torch.arange(6)))


class OwnEmbedding(Echo):
    def embedding(self, grid, patch, channels):
        return nn.Sequential(
            nn.Unflatten(3, (grid.columns, patch)),
            nn.Flatten(2),
            nn.LazyLinear(grid.size * self.width),
            nn.Unflatten(2, (grid.size, self.width)),
            nn.Flatten(1, 2),
        )


def test_a_backbone_may_bring_its_own_embedding():
    with pytest.raises(UsageError, match="kind: none"):
        make(OwnEmbedding())
    model = make(OwnEmbedding(), positions="none")
    assert model.embed(torch.zeros(2, 1, 4, 6)).shape == (2, 6, 8)


def test_a_backbone_with_several_orders_gets_them_all():
    model = make(Echo())
    grid = Grid(2, 3)
    layouts = (Layout.fixed(grid, torch.arange(6).flip(0)), Layout.fixed(grid, torch.arange(6)))
    level = model(torch.randn(1, 1, 4, 6), layouts).levels[0]
    assert isinstance(level.layout, tuple)
    assert len(level.layout) == 2
