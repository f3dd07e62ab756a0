"""The contract of what stands between blocks. B images, N patches or slots, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reorder_core.conformance.building import (
    Buildable,
    Given,
    build,
    context,
    leaves_global_random_state,
    require,
)
from reorder_core.conformance.gradients import weighted
from reorder_core.grid import Grid
from reorder_core.layout import Layout

WIDTH = 32


def check_between(
    component: Buildable, settings: Given = None, *, grid: Grid | None = None, depth: int = 4, tolerance: float = 1e-6
) -> None:
    """Check it after each of `depth` blocks, for one order a batch, for groups and for an order an image.

    - The same tokens come back, as many as before, and the layout says where each of them now stands: back on the grid
      nothing has moved. In training too.
    - In evaluation it draws no random number, repeats itself, and reads an image alone as beside others.
    - Weights of an exit are [B, N], not negative, and of sum 1 in each image.
    - A gradient reaches every parameter, through the tokens or through an exit, and is finite.
    """
    place = grid or Grid(3, 4)
    module: Any = build("between", component, settings, context(place, width=WIDTH))
    require(isinstance(module, nn.Module), "what stands between blocks must be a torch.nn.Module")
    require(callable(getattr(module, "prepare", None)), "it needs prepare(depth)")
    module.prepare(depth)
    draw = torch.Generator().manual_seed(1)
    for layout in _layouts(place, draw):
        for training in (False, True):
            module.train(training)
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(2)
                _check_pass(module, _tokens(place, draw), layout, depth, tolerance)
        module.eval()
        with torch.no_grad():
            _check_evaluation(module, _tokens(place, draw), layout, depth, tolerance)
    _check_gradients(module, place, depth, draw)


def _tokens(grid: Grid, draw: torch.Generator) -> Tensor:
    return torch.randn(4, grid.size, WIDTH, generator=draw)


def _layouts(grid: Grid, draw: torch.Generator) -> list[Layout]:
    """One order, two groups, and an order for each of four images."""
    perm_GN = torch.stack([torch.randperm(grid.size, generator=draw) for _ in range(4)])
    return [
        Layout(grid, perm_GN[:1]),
        Layout(grid, perm_GN[:2], torch.tensor([1, 0, 1, 1])),
        Layout(grid, perm_GN, torch.arange(4)),
    ]


def _check_pass(module: Any, tokens_BND: Tensor, layout: Layout, depth: int, tolerance: float) -> Layout:
    """Through all blocks, each of which gives its input back; returns the layout at the end."""
    patches_BND = layout.order(tokens_BND)
    for k in range(depth):
        if k in getattr(module, "exits_after", ()):
            _check_exit(module.exit_weights(k, patches_BND, layout), patches_BND)
        patches_BND, layout = module(k, patches_BND, layout)
        require(isinstance(layout, Layout), "it must hand on the tokens and their Layout")
        require(patches_BND.shape == tokens_BND.shape, f"after block {k} there must be as many tokens as before")
        require(layout.special == (), "it sees no special tokens, and adds none")
        moved = (layout.restore(patches_BND) - tokens_BND).abs().max()
        require(
            float(moved) <= tolerance,
            f"after block {k} a token stands where the layout says another one does: order tokens and layout alike",
        )
    return layout


def _check_exit(weight_BN: Any, patches_BND: Tensor) -> None:
    require(isinstance(weight_BN, Tensor), "exit_weights must return a tensor")
    require(weight_BN.shape == patches_BND.shape[:2], f"exit_weights must be [B, N], not {list(weight_BN.shape)}")
    require(bool((weight_BN >= 0).all()), "exit_weights must not be negative")
    require(bool(((weight_BN.sum(1) - 1).abs() < 1e-4).all()), "exit_weights must have the sum 1 in each image")


def _check_evaluation(module: Any, tokens_BND: Tensor, layout: Layout, depth: int, tolerance: float) -> None:
    with leaves_global_random_state("what stands between blocks, in evaluation,"):
        one, two = (_check_pass(module, tokens_BND, layout, depth, tolerance) for _ in range(2))
    require(_same_order(one, two), "in evaluation the same input must give the same order")
    group_B = torch.zeros(4, dtype=torch.int64) if layout.group_B is None else layout.group_B
    for image in range(4):
        alone = Layout(layout.grid, layout.perm_GN[group_B[image]][None])
        found = _check_pass(module, tokens_BND[image : image + 1], alone, depth, tolerance)
        require(
            torch.equal(_perm_BN(found, 1)[0], _perm_BN(one, 4)[image]),
            "an image must get its order alone as in a batch",
        )


def _perm_BN(layout: Layout, batch: int) -> Tensor:
    return layout.perm_GN.expand(batch, -1) if layout.group_B is None else layout.perm_GN[layout.group_B]


def _same_order(one: Layout, two: Layout) -> bool:
    return torch.equal(_perm_BN(one, 4), _perm_BN(two, 4))


def _check_gradients(module: Any, grid: Grid, depth: int, draw: torch.Generator) -> None:
    """Weights are moved a little first, so that what is initialised to zero hides nothing."""
    module.train()
    named = [(name, values) for name, values in module.named_parameters() if values.requires_grad]
    with torch.no_grad():
        for _, values in named:
            values.add_(0.02 * torch.randn(values.shape, generator=draw))
    patches_BND, layout = _tokens(grid, draw).requires_grad_(), _layouts(grid, draw)[0]
    given_BND, found = patches_BND, []
    for k in range(depth):
        if k in getattr(module, "exits_after", ()):
            found.append(module.exit_weights(k, patches_BND, layout))
        patches_BND, layout = module(k, patches_BND, layout)
    weighted([patches_BND, *found], draw).backward()  # type: ignore[no-untyped-call]
    require(given_BND.grad is not None and bool(given_BND.grad.isfinite().all()), "tokens need a gradient")
    for name, values in named:
        require(values.grad is not None, f"the gradient must reach every parameter: '{name}' has none")
        assert values.grad is not None
        require(bool(values.grad.isfinite().all()), f"the gradient of '{name}' must be finite")
        require(bool(values.grad.any()), f"the gradient must reach every parameter: that of '{name}' is zero")
