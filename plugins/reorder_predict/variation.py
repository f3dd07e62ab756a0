"""How much an image varies along an order: measured over the validation split, a batch at a time.

B images, C channels, H W pixels, N patches, P pixels of a patch, E pairs of patches, O orders, K permutations of one
order, S images in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core.opened import OpenedData
from reorder_core.patches import cut

_CELLS_AT_ONCE = 8_000_000  # differences held at a time: 32 MB


@dataclass(frozen=True)
class Variation:
    """Of every image. along_OS: along each order; row_major_S: row by row; contrast_S: its pixels' deviation; class_S:
    the number of its class, None where the target is none.
    """

    along_OS: NDArray[np.float64]
    row_major_S: NDArray[np.float64]
    contrast_S: NDArray[np.float64]
    class_S: NDArray[np.int64] | None = None


def measure(
    opened: OpenedData,
    orders_OKN: Sequence[NDArray[np.int64]],
    images: int,
    batch_size: int,
    tick: Callable[[int], None] = lambda images: None,
) -> Variation:
    """The total variation of every validation image along every order, divided by its N-1 steps.

    A step costs the mean absolute difference of the two patches' pixels, so that 0 means that the image is the same in
    every patch. Learned orders: the mean over their permutations. `tick` is called with the images of each batch. All
    orders together take each pair of patches once.
    """
    row_major_1N = np.arange(opened.grid.size)[None]
    first_E, second_E, share_EO = _pairs([*orders_OKN, row_major_1N])
    along, contrast, classes = [], [], []
    for batch in opened.batches(opened.dataset.validation, images, batch_size):
        patches_BNP = torch.from_numpy(cut(batch.images_BCHW.numpy(), opened.grid))
        along.append(_differences(patches_BNP, first_E, second_E) @ share_EO)
        contrast.append(patches_BNP.double().flatten(1).std(dim=1, correction=0).cpu().numpy())
        classes.append(_class_B(batch.target))
        tick(len(batch))
    along_SO = np.concatenate(along)
    known = [each for each in classes if each is not None]
    class_S = np.concatenate(known) if known and len(known) == len(classes) else None
    return Variation(along_SO[:, :-1].T, along_SO[:, -1], np.concatenate(contrast), class_S)


def _class_B(target: object) -> NDArray[np.int64] | None:
    is_class = isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()
    return target.cpu().numpy().astype(np.int64) if is_class else None


def _pairs(
    orders_OKN: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of patches that follow each other in any order, and the share of each in every order, [E], [E], [E, O]."""
    N = orders_OKN[0].shape[1]
    codes = []
    for orders_KN in orders_OKN:
        ends_2KE = np.stack([orders_KN[:, :-1], orders_KN[:, 1:]])
        codes.append((ends_2KE.min(axis=0) * N + ends_2KE.max(axis=0)).ravel())
    code_E = np.unique(np.concatenate(codes))
    share_EO = np.zeros((len(code_E), len(codes)))
    for number, code in enumerate(codes):
        np.add.at(share_EO[:, number], np.searchsorted(code_E, code), 1 / max(1, code.size))
    return code_E // N, code_E % N, share_EO


def _differences(patches_BNP: Tensor, first_E: NDArray[np.int64], second_E: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean absolute difference of the pixels of each pair, [B, E]."""
    B, _, P = patches_BNP.shape
    at_once = max(1, _CELLS_AT_ONCE // max(1, B * P))
    found = []
    for start in range(0, len(first_E), at_once):
        part = slice(start, start + at_once)
        one_BEP, other_BEP = (patches_BNP[:, torch.from_numpy(ends[part])] for ends in (first_E, second_E))
        found.append((one_BEP - other_BEP).abs().mean(dim=2))
    return torch.cat(found, dim=1).double().cpu().numpy() if found else np.zeros((B, 0))
