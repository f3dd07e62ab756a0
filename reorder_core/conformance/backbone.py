"""The contract of a backbone. B images, N slots, D width, G orders, R orders that it is given at once."""

from __future__ import annotations

from collections.abc import Sequence
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
from reorder_core.conformance.gradients import require_gradients, weighted
from reorder_core.conformance.strategies import for_all, token_batches
from reorder_core.errors import UsageError
from reorder_core.grid import Grid
from reorder_core.interfaces.backbone import Features
from reorder_core.layout import Layout

Order = Layout | tuple[Layout, ...]
SENSITIVE = 1e-4
"""A summary that moves by less than this, relative to its size, does not depend on the order."""


class _Backbone:
    """A backbone on one grid, with seeded weights, and what the checks ask of it."""

    def __init__(self, component: Buildable, settings: Given, grid: Grid, tolerance: float, seed: int = 0) -> None:
        self.grid = grid
        self.tolerance = tolerance
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = build("backbone", component, settings, context(grid, width=32))
        require(isinstance(self.module, nn.Module), "a backbone must be a torch.nn.Module")
        self.module.eval()
        self.draw = torch.Generator().manual_seed(seed + 1)

    def tokens(self, batch: int) -> Tensor:
        return torch.randn(batch, self.grid.size, self.token_width, generator=self.draw)

    @property
    def token_width(self) -> int:
        return int(getattr(self.module, "token_width", self.module.width))

    def orders(self, groups: int = 1) -> Tensor:
        """Random orders, [G, N]."""
        return torch.stack([torch.randperm(self.grid.size, generator=self.draw) for _ in range(groups)])

    def order(self, perm_GN: Tensor, group_B: Tensor | None = None) -> Order:
        """The layout; for a backbone that wants R orders, this one and R-1 fixed ones."""
        first = Layout(self.grid, perm_GN, group_B)
        rest = [Layout(self.grid, torch.arange(self.grid.size).roll(r)[None]) for r in range(1, self.module.orders)]
        return (first, *rest) if rest else first

    def read(self, patches_BND: Tensor, perm_GN: Tensor, group_B: Tensor | None = None) -> Features:
        """Features of patches that are read in an order."""
        order = self.order(perm_GN, group_B)
        layout = order[0] if isinstance(order, tuple) else order
        features: Features = self.module(layout.order(patches_BND), order)
        return features

    def close(self, one: Tensor, other: Tensor) -> bool:
        return relative_difference(one, other) <= self.tolerance


def relative_difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value (at least 1)."""
    return float((one - other).abs().max() / max(1.0, float(one.abs().max())))


def check_backbone(
    component: Buildable, settings: Given = None, *, grid: Grid | None = None, tolerance: float = 1e-5
) -> None:
    """Shapes, finite values, gradients, and that it is what it declares.

    - The summary is [B, D], each level's tokens are [B, N, D] of its layout, for several grids and batches.
    - A gradient reaches every parameter. In evaluation it draws no random number and repeats itself.
    - With tokens that carry their own positions, `order_sensitive = False` gives the same summary, and the same
      tokens on the grid, in any order, to `tolerance`; `True` gives another summary in at least one of eight orders.
    - `attention = "causal"`: changing a later token changes no earlier output.
    - An image is read the same alone as in a batch; two groups at once as each group by itself; G = B too.
    - `takes_text`: a text after the patches comes back as [B, T, D]; with causal attention it changes no patch and no
      earlier token of its own, and it depends on the patches; steps (`init_state`, `step`) give the same.
    - Its state goes into another one and gives the same answer.
    """
    backbone = _Backbone(component, settings, grid or Grid(4, 4), tolerance)
    with torch.no_grad():
        _check_declarations(backbone.module)
        _check_shapes(component, settings, backbone)
        _check_repeats(backbone)
        _check_order(backbone)
        _check_causal(backbone)
        _check_images_are_independent(backbone)
        _check_groups(backbone)
        check_text(backbone)
        _check_state(backbone, _Backbone(component, settings, backbone.grid, tolerance, seed=7))
    _check_gradients(backbone)


def check_text(backbone: _Backbone, text: int = 5) -> None:
    """The promises of `takes_text`, where the backbone makes them."""
    module = backbone.module
    if not getattr(module, "takes_text", False):
        return
    order = backbone.order(backbone.orders())
    tokens_BND = backbone.tokens(2)
    text_BTD = torch.randn(2, text, tokens_BND.shape[-1], generator=backbone.draw)
    plain, read = module(tokens_BND, order), module(tokens_BND, order, text_BTD)
    found_BTD = read.text_BTD
    require(found_BTD is not None and found_BTD.shape == text_BTD.shape, "a text must come back as Features.text_BTD")
    require(read.levels[0].tokens_BND.shape == plain.levels[0].tokens_BND.shape, "a text is no patch: keep both apart")
    other = module(tokens_BND.roll(1, dims=0), order, text_BTD).text_BTD
    require(not torch.equal(found_BTD, other), "a text must see the patches before it")
    if module.attention != "causal":
        return
    for one, two in zip(plain.levels, read.levels, strict=True):
        require(backbone.close(one.tokens_BND, two.tokens_BND), "causal: a text must change no patch before it")
    changed_BTD = text_BTD.clone()
    changed_BTD[:, -1] = torch.randn(text_BTD[:, -1].shape, generator=backbone.draw)
    after_BTD = module(tokens_BND, order, changed_BTD).text_BTD
    require(backbone.close(found_BTD[:, :-1], after_BTD[:, :-1]), "causal: a word must change no word before it")
    require(not backbone.close(found_BTD[:, -1], after_BTD[:, -1]), "a word must change what becomes of itself")
    _check_steps(backbone, torch.cat([tokens_BND, text_BTD], dim=1), read)


def _check_steps(backbone: _Backbone, tokens_BLD: Tensor, read: Features) -> None:
    """Token by token as in one pass, where the backbone can; one that cannot says so with `UsageError`."""
    module, T = backbone.module, read.text_BTD.shape[1]  # type: ignore[union-attr]
    if not hasattr(module, "init_state"):
        return
    try:
        state = module.init_state(len(tokens_BLD), T)
    except UsageError:
        return
    outputs = []
    for token_BD in tokens_BLD.unbind(1):
        output_BD, state = module.step(token_BD, state)
        outputs.append(output_BD)
    whole_BLD = torch.cat([read.levels[0].tokens_BND, read.text_BTD], dim=1)  # type: ignore[list-item]
    require(backbone.close(torch.stack(outputs, dim=1), whole_BLD), "steps must give what one pass gives")


def _check_declarations(module: Any) -> None:
    require(isinstance(module.width, int) and module.width > 0, "width must be a whole number above 0")
    require(module.attention in ("full", "prefix", "causal"), f"attention is no {module.attention!r}")
    require(isinstance(module.order_sensitive, bool), "order_sensitive must be True or False")
    require(isinstance(module.orders, int) and module.orders >= 1, "orders must be a whole number of at least 1")


def _check_shapes(component: Buildable, settings: Given, backbone: _Backbone) -> None:
    for grid in {Grid(2, 3), Grid(1, 5), backbone.grid}:
        _check_shapes_on(_Backbone(component, settings, grid, backbone.tolerance))


def _check_shapes_on(backbone: _Backbone) -> None:
    @for_all(5, token_batches(backbone.grid.size, backbone.token_width))
    def right(patches_BND: Tensor) -> None:
        features = backbone.read(patches_BND, backbone.orders())
        _require_shapes(features, patches_BND.shape[0], backbone)


def _require_shapes(features: Any, batch: int, backbone: _Backbone) -> None:
    width = backbone.module.width
    require(isinstance(features, Features), f"forward must return Features, not {type(features).__name__}")
    require(
        tuple(features.summary_BD.shape) == (batch, width),
        f"summary_BD must be [{batch}, {width}], not {list(features.summary_BD.shape)}",
    )
    require(len(features.levels) >= 1, "Features needs at least one level")
    for number, level in enumerate(features.levels):
        shape, slots = tuple(level.tokens_BND.shape), level.layout.perm_GN.shape[1]
        require(
            len(shape) == 3 and shape[:2] == (batch, slots) and slots == level.layout.grid.size,
            f"level {number} must be [{batch}, {slots}, D] without special tokens, not {list(shape)}",
        )
    grids = tuple(level.layout.grid for level in features.levels)
    announced = getattr(backbone.module, "grids", grids)
    require(tuple(announced) == grids, f"`grids` must be those of the levels, {grids}, not {announced}")
    for values in (features.summary_BD, *features.exits, *(level.tokens_BND for level in features.levels)):
        require(bool(values.isfinite().all()), "every output must be finite for tokens of unit variance")


def _check_repeats(backbone: _Backbone) -> None:
    patches_BND, perm_GN = backbone.tokens(2), backbone.orders()
    with leaves_global_random_state("a backbone in evaluation"):
        one, two = (backbone.read(patches_BND, perm_GN).summary_BD for _ in range(2))
    require(torch.equal(one, two), "in evaluation a backbone must give the same answer twice")


def _check_order(backbone: _Backbone) -> None:
    patches_BND = backbone.tokens(2)
    seen = [backbone.read(patches_BND, perm_N[None]) for perm_N in backbone.orders(8)]
    moved = max(relative_difference(seen[0].summary_BD, other.summary_BD) for other in seen[1:])
    if backbone.module.order_sensitive:
        require(moved > SENSITIVE, "order_sensitive is True, but the summary is the same in eight random orders")
        return
    require(
        moved <= backbone.tolerance, f"order_sensitive is False, but another order moves the summary by {moved:.1e}"
    )
    placed = [features.levels[0].layout.restore(features.levels[0].tokens_BND) for features in seen]
    require(
        all(backbone.close(placed[0], other) for other in placed[1:]),
        "order_sensitive is False, but another order changes the tokens of the same patches",
    )


def _check_causal(backbone: _Backbone) -> None:
    if backbone.module.attention != "causal":
        return
    patches_BND, perm_GN = backbone.tokens(2), backbone.orders()
    layout = Layout(backbone.grid, perm_GN)
    before = backbone.read(patches_BND, perm_GN)
    for slot in sorted({1, backbone.grid.size // 2, backbone.grid.size - 1}):
        sequence_BND = layout.order(patches_BND).clone()
        sequence_BND[:, slot:] += torch.randn(sequence_BND[:, slot:].shape, generator=backbone.draw)
        after = backbone.read(layout.restore(sequence_BND), perm_GN)
        for one, other in zip(before.levels[:1], after.levels[:1], strict=True):
            require(
                backbone.close(one.tokens_BND[:, :slot], other.tokens_BND[:, :slot]),
                f"attention is causal, but changing the tokens from slot {slot} on changes outputs before it",
            )
            require(
                relative_difference(one.tokens_BND[:, slot], other.tokens_BND[:, slot]) > SENSITIVE,
                f"the output of slot {slot} must depend on its token",
            )


def _check_images_are_independent(backbone: _Backbone) -> None:
    patches_BND, perm_GN = backbone.tokens(3), backbone.orders()
    together = backbone.read(patches_BND, perm_GN).summary_BD
    for image in range(3):
        alone = backbone.read(patches_BND[image : image + 1], perm_GN).summary_BD
        require(
            backbone.close(together[image : image + 1], alone),
            "an image must be read the same alone as beside others",
        )


def _check_groups(backbone: _Backbone) -> None:
    """Groups at once are each group by itself: for two groups of unequal size, and for an order an image."""
    patches_BND = backbone.tokens(4)
    for group_B in (torch.tensor([1, 0, 1, 1]), torch.arange(4)):
        perm_GN = backbone.orders(int(group_B.max()) + 1)
        together = backbone.read(patches_BND, perm_GN, group_B)
        _require_shapes(together, 4, backbone)
        for group, perm_N in enumerate(perm_GN):
            member_B = group_B == group
            alone = backbone.read(patches_BND[member_B], perm_N[None])
            for one, other in (
                (together.summary_BD[member_B], alone.summary_BD),
                (together.levels[0].tokens_BND[member_B], alone.levels[0].tokens_BND),
            ):
                require(
                    backbone.close(one, other), "several orders in a batch must read each image as its order alone does"
                )


def _check_state(backbone: _Backbone, other: _Backbone) -> None:
    patches_BND, perm_GN = backbone.tokens(2), backbone.orders()
    other.module.load_state_dict(backbone.module.state_dict())
    one, two = (each.read(patches_BND, perm_GN).summary_BD for each in (backbone, other))
    require(backbone.close(one, two), "state_dict must hold everything that the answer depends on")


def _check_gradients(backbone: _Backbone) -> None:
    """Weights are moved a little first, so that what is initialised to zero hides nothing; four passes, for dropout."""
    module = backbone.module.train()
    named = [(name, values) for name, values in module.named_parameters() if values.requires_grad]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for _, values in named:
            values.add_(0.02 * torch.randn_like(values))
    for _ in range(4):
        patches_BND = backbone.tokens(4).requires_grad_()
        features = backbone.read(patches_BND, backbone.orders())
        weighted(_outputs(features), backbone.draw).backward()  # type: ignore[no-untyped-call]
        require(patches_BND.grad is not None and bool(patches_BND.grad.isfinite().all()), "tokens need a gradient")
    require_gradients(named, "a backbone")
    module.eval()


def _outputs(features: Features) -> Sequence[Tensor]:
    return (features.summary_BD, *features.exits, *(level.tokens_BND for level in features.levels))
