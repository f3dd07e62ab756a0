"""How important each patch is, by gradient, by occlusion, and by variance. Maps are [B, N] in patch order, 0 or more.

B images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core import Batch, Grid
from reorder_core.patches import cut
from reorder_saliency.objective import Objective
from reorder_saliency.rollout import rollout

Tick = Callable[[], None]

METHODS = ("rollout", "gradient", "occlusion")


def maps(method: str, objective: Objective, batches: Sequence[Batch], tick: Tick = lambda: None) -> NDArray[np.float64]:
    """The saliency of every patch of every image by one of `METHODS`, each image's with mean 1, float64 [B, N].

    A map that is 0 everywhere stays so. `tick` is called after each pass (see `passes`).
    Raises `UsageError` where the model has no attention to follow.
    """
    if method == "rollout":
        found = _each(lambda batch: rollout(objective.opened, batch.images_BCHW, objective.layout), batches, tick)
    elif method == "gradient":
        found = _each(lambda batch: by_gradient(objective, batch), batches, tick)
    else:
        found = by_occlusion(objective, batches, tick)
    map_BN = found.double().cpu().numpy()
    mean_B1 = map_BN.mean(axis=1, keepdims=True)
    scaled_BN: NDArray[np.float64] = map_BN / np.where(mean_B1 > 0, mean_B1, 1.0)
    return scaled_BN


def passes(method: str, batches: int, grid: Grid) -> int:
    """How often `tick` is called."""
    return batches * grid.size if method == "occlusion" else batches


def by_gradient(objective: Objective, batch: Batch) -> Tensor:
    """|Σ gradient x input| over the pixels of each patch (Shrikumar et al. 2017, section 3.2), [B, N].

    In first order, how far the objective moves when the patch becomes 0, the mean of normalised images.
    """
    images_BCHW = batch.images_BCHW.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient_BCHW,) = torch.autograd.grad(objective(batch, images_BCHW)[0].sum(), images_BCHW)
    return patch_sums(gradient_BCHW * images_BCHW.detach(), objective.opened.grid).abs()


@torch.no_grad()
def by_occlusion(objective: Objective, batches: Sequence[Batch], tick: Tick = lambda: None) -> Tensor:
    """How far the objective moves when a patch is replaced by its mean over all these images (Zeiler & Fergus 2014,
    section 4.2, with the mean in place of grey), [B, N]. The class stays that of the whole image."""
    grid = objective.opened.grid
    total_CHW = torch.stack([batch.images_BCHW.sum(dim=0) for batch in batches]).sum(dim=0)
    mean_CHW = total_CHW / sum(len(batch) for batch in batches)
    found = []
    for batch in batches:
        whole_B, class_B = objective(batch, batch.images_BCHW)
        moved = []
        for patch in range(grid.size):
            images_BCHW = batch.images_BCHW.clone()
            window = pixels_of(patch, grid, images_BCHW)
            images_BCHW[(slice(None), *window)] = mean_CHW[window]
            moved.append((objective(batch, images_BCHW, class_B)[0] - whole_B).abs())
            tick()
        found.append(torch.stack(moved, dim=1))
    return torch.cat(found)


def variance_N(images_BCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """The variance of each patch over the images, mean over its pixels, float64 [N]: of the data, without a model."""
    found_N: NDArray[np.float64] = cut(images_BCHW, grid).var(axis=0, dtype=np.float64).mean(axis=1)
    return found_N


def patch_sums(values_BCHW: Tensor, grid: Grid) -> Tensor:
    """The sum over the pixels and channels of each patch, [B, N], on the CPU."""
    return torch.from_numpy(cut(values_BCHW.cpu().numpy(), grid).sum(axis=2))


def pixels_of(patch: int, grid: Grid, images_BCHW: Tensor) -> tuple[slice, slice, slice]:
    """The channels, rows and columns of an image that a patch is."""
    row, column, _ = grid.place(patch)
    high, wide = images_BCHW.shape[-2] // grid.rows, images_BCHW.shape[-1] // grid.columns
    return slice(None), slice(row * high, (row + 1) * high), slice(column * wide, (column + 1) * wide)


def _each(measure: Callable[[Batch], Tensor], batches: Sequence[Batch], tick: Tick) -> Tensor:
    found = []
    for batch in batches:
        found.append(measure(batch))
        tick()
    return torch.cat(found)
