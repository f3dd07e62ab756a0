"""The ranking of a few images that lie in memory, for the ordering that picks from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, Grid
from reorder_core.catalogue import Catalogue
from reorder_core.pixels import MemoryImages, UnitRange
from reorder_prior.candidates import default_candidates, named_candidates
from reorder_prior.measure import Measure, fit_where_needed, run_measure
from reorder_prior.ranking import Ranked, rank
from reorder_prior.settings import CompressibilitySettings
from reorder_prior.shards import cores

if TYPE_CHECKING:
    import torch


def ranking_of(
    settings: CompressibilitySettings,
    context: Context,
    images: NDArray[np.float32],
    grid: Grid,
    generator: torch.Generator,
) -> tuple[list[Ranked], int]:
    """(the ranking, how many images it rests on). The tokenizer is fitted to the same images where it has to be."""
    import torch

    catalogue = Catalogue.load()
    own = torch.Generator().manual_seed(generator.initial_seed())
    context = context.changed(grid=grid, generator=own)
    unit_BCHW = UnitRange.of([images]).apply(images)
    if settings.orderings is None:
        candidates, _ = default_candidates(catalogue, context)
    else:
        candidates = named_candidates(settings.orderings, catalogue, context, lambda: unit_BCHW)
    tokenizer, compressor = context.resolve(settings.tokenizer), context.resolve(settings.compressor)
    fit_where_needed(tokenizer, lambda: unit_BCHW)
    measure = Measure(candidates, grid, context.patch, tokenizer, compressor, (settings.ngram,), settings.together)
    memory = MemoryImages(unit_BCHW)
    return rank(measure, run_measure(measure, memory, range(len(memory)), 0, cores())), len(memory)
