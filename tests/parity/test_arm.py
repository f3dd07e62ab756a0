"""ARM, with a file of weights in the published layout, against its step-by-step twin: outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from reorder_arm.backbone import ArmBackbone
from reorder_arm.reference import arm_reference, finetuned_shapes
from reorder_arm.settings import ArmSettings

from reorder_core import Grid, Layout
from reorder_core.conformance import context
from reorder_core.model import Model

WIDTH, DEPTH, STATE, PATCH = 16, 2, 4, 2


def case(tmp_path, grid, readout="mean"):
    """(the model with the file's weights, the file's tensors in float64, images)."""
    draw = torch.Generator().manual_seed(3)
    shapes = finetuned_shapes(WIDTH, DEPTH, STATE, grid.size, PATCH, channels=3, classes=5)
    state = {name: 0.3 * torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
    path = tmp_path / "arm.pt"
    torch.save({"model": state}, path)
    settings = ArmSettings(width=WIDTH, depth=DEPTH, state=STATE, readout=readout, weights=str(path))
    backbone = ArmBackbone(settings, context(grid, patch=PATCH, channels=3, width=WIDTH))
    model = Model(backbone, grid, PATCH, 3, "none").double()
    # The weights went through float32; again from the file, so that only the arithmetic is compared.
    own = model.state_dict()
    for name, value in state.items():
        if f"backbone.{name}" in own and name != "cls_token":
            own[f"backbone.{name}"].copy_(value)
    middle = grid.size // 2
    own["backbone.cls_token"].copy_(state["cls_token"] + state["pos_embed"][:, middle])
    own["embedding.project.weight"].copy_(state["patch_embed.proj.weight"])
    own["embedding.project.bias"].copy_(state["patch_embed.proj.bias"])
    own["embedding.position_ND"].copy_(torch.cat([state["pos_embed"][0, :middle], state["pos_embed"][0, middle + 1 :]]))
    images = torch.randn(2, 3, grid.rows * PATCH, grid.columns * PATCH, generator=draw, dtype=torch.float64)
    return model, {name: value.requires_grad_() for name, value in state.items()}, images


def compare(model, state, images, order_N, readout):
    ours = model(images, Layout.fixed(model.grid, order_N)).summary_BD
    theirs = arm_reference(state, images, PATCH, order_N, readout)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for name, parameter in model.backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, rtol=1e-5, atol=1e-6, msg=name)
    middle, rows = model.grid.size // 2, state["pos_embed"].grad[0]
    torch.testing.assert_close(
        model.embedding.position_ND.grad, torch.cat([rows[:middle], rows[middle + 1 :]]), rtol=1e-5, atol=1e-6
    )
    patch = state["patch_embed.proj.weight"].grad
    torch.testing.assert_close(model.embedding.project.weight.grad, patch, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("readout", ["mean", "class"])
def test_published_on_a_square_grid_row_by_row(tmp_path, readout):
    model, state, images = case(tmp_path, Grid(4, 4), readout)
    compare(model, state, images, torch.arange(16), readout)


@pytest.mark.parametrize("grid", [Grid(4, 4), Grid(2, 5), Grid(5, 3)], ids=str)
def test_any_order_on_any_grid(tmp_path, grid):
    model, state, images = case(tmp_path, grid)
    compare(model, state, images, torch.randperm(grid.size, generator=torch.Generator().manual_seed(2)), "mean")


def test_the_twin_transposes_a_square_as_published():
    """The published code's own steps: take the class token out, view as a square, transpose, put it back."""
    side, L = 4, 17
    along = torch.arange(L)
    token, rest = along[L // 2], torch.cat([along[: L // 2], along[L // 2 + 1 :]])
    square = rest.reshape(side, side).T.reshape(-1)
    published = torch.cat([square[: L // 2], token[None], square[L // 2 :]])
    layout = Layout(Grid(side, side), torch.arange(16)[None], special=(8,))
    backbone = ArmBackbone(ArmSettings(width=8, depth=1), context(Grid(side, side), width=8))
    assert torch.equal(backbone.plan(layout)[2].index, published)
