"""The hierarchy: stages of blocks around any mixer, neighbours merged between them.

B images, N tokens of a stage, D its width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

from reorder_core import Block, Context, Features, Grid, Layout, Level, SequenceModel, UsageError, load_weights, seeded
from reorder_core.sequence import initialise
from reorder_hierarchical.merging import Merge
from reorder_hierarchical.settings import HierarchicalSettings

Layouts = tuple[Layout, ...]


class Stage(nn.Module):
    """Blocks of one width on one grid, what merges the tokens before them (not in the first), and the norm behind."""

    def __init__(self, merge: Merge | None, blocks: Iterable[Block], width: int) -> None:
        super().__init__()
        self.merge = merge
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def plan(self, layouts: Layouts) -> Any:
        """What the mixers of this stage share for these layouts."""
        mixer: Any = self.blocks[0].mixer
        return mixer.plan(layouts if mixer.orders > 1 else layouts[0])


class HierarchicalBackbone(SequenceModel):
    """See `HierarchicalSettings`. It takes tokens of the first stage's width, `token_width`; `width` is the last's.

    `Features.levels` are the normed outputs of all stages, finest first, each with the layout of its tokens. Blocks
    are counted through all stages, for `between` and `exits_after`; an exit has the width of its stage.
    Raises `UsageError` for stages that do not fit the grid, and what the mixer raises for a width it cannot have.
    """

    takes_text = False  # tokens are merged by squares or pairs of patches

    def __init__(self, settings: HierarchicalSettings, context: Context) -> None:
        super().__init__(settings, context)
        for problem in settings.mistakes(context.grid):
            raise UsageError(f"backbone.{problem.key}: {problem.message}")
        self.token_width = settings.widths[0]
        self.grids = tuple(settings.grids(context.grid))
        with seeded(context.generator):
            self.stages = nn.ModuleList(_stages(settings, context))
            initialise(self)
        self._declare(settings)
        if settings.weights is not None:
            load_weights(self, settings.weights)

    def _declare(self, settings: HierarchicalSettings) -> None:
        """By what its mixer is, and what merging adds: the sequence's neighbours depend on the order, and a square
        holds patches that a causal mixer reads later."""
        mixer: Any = self._each_stage()[0].blocks[0].mixer
        merges = len(settings.widths) > 1
        self.orders = mixer.orders
        self.attention = "full" if merges and settings.merge == "grid" else mixer.attention
        by_order = merges and settings.merge == "sequence"
        self.order_sensitive = mixer.order_sensitive or by_order or settings.readout == "last"

    def blocks_in_order(self) -> Iterable[nn.Module]:
        return [block for stage in self._each_stage() for block in stage.blocks]

    def forward(self, tokens_BND: Tensor, layout: Layout | Layouts) -> Features:
        """tokens_BND in reading order (of the first layout), positions added, of width `token_width`."""
        layouts = layout if isinstance(layout, tuple) else (layout,)
        levels: list[Level] = []
        exits: list[Tensor] = []
        k = 0
        for stage in self._each_stage():
            if stage.merge is not None:
                tokens_BND, layouts = stage.merge(tokens_BND, layouts)
            plan = stage.plan(layouts)
            for block in stage.blocks:
                tokens_BND = block(tokens_BND, plan)
                if self.between is not None:
                    tokens_BND, after = self.between(k, tokens_BND, layouts[0])
                    layouts = (after, *layouts[1:])
                    plan = stage.plan(layouts)
                if k in self.exits_after:
                    exits.append(self._summary(Level(stage.norm(tokens_BND), layouts[0])))
                k += 1
            levels.append(Level(stage.norm(tokens_BND), layouts[0]))
        return Features(tuple(levels), self._summary(levels[-1]), tuple(exits))

    def _each_stage(self) -> list[Stage]:
        return cast(list[Stage], list(self.stages))

    def _summary(self, level: Level) -> Tensor:
        return self.summarise(level.tokens_BND, level.tokens_BND[:, :0], level.layout)


def _stages(settings: HierarchicalSettings, context: Context) -> Iterable[Stage]:
    total, k = sum(settings.depths), 0
    before = 0
    for width, depth, grid in zip(settings.widths, settings.depths, settings.grids(context.grid), strict=True):
        merge = Merge(before, width, settings.factor, settings.merge == "grid") if before else None
        rates = [settings.drop_path * (k + j) / max(1, total - 1) for j in range(depth)]
        yield Stage(merge, [_block(settings, context, width, grid, rate) for rate in rates], width)
        before, k = width, k + depth


def _block(settings: HierarchicalSettings, context: Context, width: int, grid: Grid, drop_path: float) -> Block:
    mixer = context.build(settings.mixer, width=width, grid=grid)
    return Block(mixer, width, settings.mlp_ratio, drop_path)
