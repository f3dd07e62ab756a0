"""What a model forgets: how much each slot of the sequence moves the prediction, averaged over random orders.

In one fixed order a slot always holds the same place of the image, so that its influence says as much about the
pictures as about the model. Over random orders every place stands in every slot: what is left is the slot's own part.

B images, R random orders, N slots, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core import Batch
from reorder_core.opened import Opened
from reorder_sensitivity.reading import read

Tick = Callable[[], None]


@dataclass(frozen=True)
class Retention:
    """Influence of each slot under each order, each row with mean 1; by gradient, and by occlusion where it was asked.

    gradient_RN: |d objective / d token|. occlusion_RS: |objective - objective without the patch| at `slots_S`.
    place_N: the influence by gradient of each place of the image (patch number), mean 1 over places.
    """

    gradient_RN: NDArray[np.float64]
    occlusion_RS: NDArray[np.float64]
    slots_S: NDArray[np.int64]
    place_N: NDArray[np.float64]

    @property
    def gradient_N(self) -> NDArray[np.float64]:
        return self.gradient_RN.mean(axis=0)

    @property
    def first_to_last(self) -> float:
        """Influence of the first quarter of the slots over that of the last: below 1, the beginning is forgotten.

        By occlusion where at least four slots were occluded, as a model may stop its gradient on purpose
        (Transformer-XL does, at its memory) and remember all the same; else by gradient.
        """
        return quarter_ratio(self.occlusion_RS.mean(axis=0) if self.slots_S.size >= 4 else self.gradient_N)


def quarter_ratio(influence_N: NDArray[np.float64]) -> float:
    """Mean of the first quarter over mean of the last (at least one slot each)."""
    quarter = max(1, len(influence_N) // 4)
    return float(influence_N[:quarter].mean() / max(influence_N[-quarter:].mean(), 1e-12))


def retention(
    opened: Opened,
    batches: Sequence[Batch],
    orders_RN: NDArray[np.int64],
    slots: int,
    tick: Tick = lambda: None,
) -> Retention:
    """Measure both influences. slots: how many slots are occluded, evenly spread (0: none); `tick` after each order."""
    N = orders_RN.shape[1]
    slots_S = np.unique(np.linspace(0, N - 1, min(slots, N)).round().astype(np.int64))[: slots or 0]
    gradient_RN, occlusion_RS, place_N = [], [], np.zeros(N)
    for order_N in orders_RN:
        influence_N = _by_gradient(opened, batches, order_N)
        place_N[order_N] += influence_N
        gradient_RN.append(influence_N / max(influence_N.mean(), 1e-30))
        if slots:
            influence_S = _by_occlusion(opened, batches, order_N, slots_S)
            occlusion_RS.append(influence_S / max(influence_S.mean(), 1e-30))
        tick()
    return Retention(
        np.stack(gradient_RN),
        np.stack(occlusion_RS) if occlusion_RS else np.zeros((len(orders_RN), 0)),
        slots_S,
        place_N / max(place_N.mean(), 1e-30),
    )


def _by_gradient(opened: Opened, batches: Sequence[Batch], order_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over images of the norm of the objective's gradient at each slot's token, [N]."""
    total_N, images = torch.zeros(len(order_N), dtype=torch.float64), 0
    for batch in batches:
        kept: list[Tensor] = []

        def keep(tokens_BND: Tensor, kept: list[Tensor] = kept) -> Tensor:
            if not kept:  # a task may read the same images several times, a caption each
                kept.append(tokens_BND.detach().requires_grad_())
            return kept[0]

        with torch.enable_grad():
            objective = read(opened, batch, order_N, keep).objective_B.sum()
            (gradient_BND,) = torch.autograd.grad(objective, kept)
        total_N += gradient_BND.norm(dim=2).sum(dim=0).double().cpu()
        images += len(batch.index_B)
    found: NDArray[np.float64] = (total_N / images).numpy()
    return found


@torch.no_grad()
def _by_occlusion(
    opened: Opened, batches: Sequence[Batch], order_N: NDArray[np.int64], slots_S: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean over images of how far the objective moves when a slot's token becomes its mean over the images, [S].

    In one order a slot holds one place, so this is the mean patch of that place, position included.
    """
    total_ND: Tensor | float = 0.0
    whole = []
    for batch in batches:
        seen: list[Tensor] = []

        def keep(tokens_BND: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(tokens_BND)
            return tokens_BND

        whole.append(read(opened, batch, order_N, keep).objective_B)
        total_ND = total_ND + seen[0].sum(dim=0)
    images = sum(len(batch.index_B) for batch in batches)
    moved_S = np.zeros(len(slots_S))
    for number, slot in enumerate(slots_S):
        for batch, whole_B in zip(batches, whole, strict=True):

            def occlude(tokens_BND: Tensor, slot: int = int(slot)) -> Tensor:
                without_BND = tokens_BND.clone()
                without_BND[:, slot] = total_ND[slot] / images  # type: ignore[index]
                return without_BND

            moved_S[number] += float((read(opened, batch, order_N, occlude).objective_B - whole_B).abs().sum())
    return moved_S / images
