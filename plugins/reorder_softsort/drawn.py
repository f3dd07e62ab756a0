"""What the policies of this room hand out: a soft order that knows which image reads which order.

B images, G orders, N patches or slots, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reorder_core import Draw
from reorder_softsort.soft_order import MakeRows, SoftOrder, read


@dataclass(frozen=True)
class SoftRead:
    """Called with tokens in patch order, gives tokens in slot order: the hard value, the soft order's gradient."""

    orders: tuple[SoftOrder, ...]
    group_B: Tensor
    tau: float
    make: MakeRows

    def __call__(self, tokens_BND: Tensor) -> Tensor:
        if len(self.orders) == 1:
            return read(self.orders[0], tokens_BND, self.tau, self.make)
        group_B = self.group_B.to(tokens_BND.device)
        parts, images = [], []
        for group, order in enumerate(self.orders):
            image_b = (group_B == group).nonzero().squeeze(1)
            if image_b.numel():
                parts.append(read(order, tokens_BND.index_select(0, image_b), self.tau, self.make))
                images.append(image_b)
        return torch.cat(parts).index_select(0, torch.cat(images).argsort())

    def part(self, images: slice) -> SoftRead:
        """The same for these images."""
        return replace(self, group_B=self.group_B[images])


def hand_out(orders: tuple[SoftOrder, ...], batch: int, tau: float, make: MakeRows) -> Draw:
    """Image i reads order i % G."""
    perm_GN = torch.stack([order.perm_N for order in orders])
    group_B = torch.arange(batch, device=perm_GN.device) % len(orders)
    return Draw(perm_GN, group_B, soft=SoftRead(orders, group_B, tau, make), aux=tau)
