"""The ordering `compressibility`: of several orderings the one in which the training images compress best, or worst."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reorder_core import ComponentRef, Context, Grid, UnsupportedGrid, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.permutation import validate
from reorder_prior.settings import CompressibilitySettings, read_ranking

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Compressibility:
    """The first stage of the paper (arXiv 2505.23751) as an ordering, so that a policy can start from it.

    chosen: the ordering that was picked, by name; empty before `fit`.
    """

    def __init__(self, settings: CompressibilitySettings, context: Context) -> None:
        self.settings = settings
        self.context = context
        self.chosen = ""
        self._grid: Grid | None = None
        self._order_N: NDArray[np.int64] | None = None

    def fit(self, images: NDArray[np.float32], grid: Grid, generator: torch.Generator) -> None:
        """Measure images [B, channels, height, width] in every candidate order, and pick one.

        The images may be normalised in any way: each channel is brought to [0, 1] by its own range. Nothing is drawn
        from the generator, so that a run's weights are the same from this prior as from another.
        """
        self._grid, self._order_N = grid, None
        if grid.frames > 1:
            return  # `permutation` says so
        picked = -1 if self.settings.pick == "loser" else 0
        if self.settings.ranking is not None:
            self.chosen, self._order_N = self._read(grid, picked)
            said = f"by {self.settings.ranking}"
        else:
            self.chosen, self._order_N, said = self._measured(images, grid, generator, picked)
        place = "least" if picked else "most"
        logger.info("compressibility: %s is the %s compressible order, %s", self.chosen, place, said)

    def permutation(self, grid: Grid) -> NDArray[np.int64]:
        """The picked order, int64 [N].

        Raises `UnsupportedGrid` for frames, whose patches no tokenizer of images makes, and `UsageError` before `fit`
        or for another grid.
        """
        if grid.frames > 1:
            raise UnsupportedGrid(f"compressibility is measured on single images, not on {grid.frames} frames")
        if self._grid != grid or self._order_N is None:
            raise UsageError(f"compressibility has no order of a {grid} grid before it was fitted to images of it")
        return self._order_N.copy()

    def _measured(
        self, images: NDArray[np.float32], grid: Grid, generator: torch.Generator, picked: int
    ) -> tuple[str, NDArray[np.int64], str]:
        from reorder_prior.fitted import ranking_of

        ranking, count = ranking_of(self.settings, self.context, images, grid, generator)
        row = ranking[picked]
        tied = [each.ordering for each in ranking if each.size.bytes == row.size.bytes and each is not row]
        with_it = f" (as {', '.join(tied)}, which compress equally)" if tied else ""
        return row.ordering, row.order_N, f"of {len(ranking)}{with_it}, over {count} training images"

    def _read(self, grid: Grid, picked: int) -> tuple[str, NDArray[np.int64]]:
        """The pick of a saved ranking: the order that stands in it, or that of the ordering it names."""
        path = self.settings.ranking
        assert path is not None
        name, permutation = read_ranking(path, grid.rows, grid.columns)[picked]
        if permutation is None:
            catalogue = Catalogue.load()
            ordering = catalogue.build(ComponentRef("ordering", name), self.context)
            if hasattr(ordering, "fit"):
                raise UsageError(f"{path} names {name}, which learns from data, without its order: save it again")
            permutation = ordering.permutation(grid)
        order_N: NDArray[np.int64] = validate(permutation, grid.size, f"the order of '{name}' in {path}")
        return name, order_N
