"""Where the tokens of a batch stand: the layout that travels with them.

B images, N patches or slots, G groups of images that share an order, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reorder_core.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Group `group_B[b]` of the batch reads in order `perm_GN[group]`: `perm_GN[g, slot] = patch`, int64.

    One group is the common case (`group_B` None); G = B is an order for each image.
    prefix, suffix: special tokens that stand before and after the patches. valid_BN: False where a slot is padding.
    """

    grid: Grid
    perm_GN: Tensor
    group_B: Tensor | None = None
    prefix: int = 0
    suffix: int = 0
    valid_BN: Tensor | None = None

    def __post_init__(self) -> None:
        if self.perm_GN.ndim != 2:
            raise ValueError(f"perm_GN must be [G, N], not {tuple(self.perm_GN.shape)}")
        if self.group_B is None and self.perm_GN.shape[0] != 1:
            raise ValueError("several orders need group_B: which image reads in which of them")

    @classmethod
    def fixed(cls, grid: Grid, perm_N: Tensor) -> Layout:
        """One order for the whole batch."""
        return cls(grid, perm_N[None])

    def to(self, device: object) -> Layout:
        """The same layout with its tensors on `device`."""
        group = None if self.group_B is None else self.group_B.to(device)  # type: ignore[call-overload]
        valid = None if self.valid_BN is None else self.valid_BN.to(device)  # type: ignore[call-overload]
        return replace(self, perm_GN=self.perm_GN.to(device), group_B=group, valid_BN=valid)  # type: ignore[call-overload]

    @property
    def slot_GN(self) -> Tensor:
        """The inverse: in which slot a patch stands."""
        return self.perm_GN.argsort(dim=1)

    def with_special(self, prefix: int = 0, suffix: int = 0) -> Layout:
        """The same order with special tokens before and after."""
        return replace(self, prefix=prefix, suffix=suffix)

    def order(self, patches_BND: Tensor) -> Tensor:
        """From patch order to reading order: `sequence = patches[:, perm]`."""
        return self._take(patches_BND, self.perm_GN)

    def restore(self, sequence_BND: Tensor) -> Tensor:
        """From reading order back to patch order (the inverse of `order`)."""
        return self._take(sequence_BND, self.slot_GN)

    def _take(self, tokens_BND: Tensor, index_GN: Tensor) -> Tensor:
        if self.group_B is None:
            return tokens_BND.index_select(1, index_GN[0])
        index_BN1 = index_GN[self.group_B].unsqueeze(-1)
        return tokens_BND.take_along_dim(index_BN1, dim=1)

    def places_GN3(self) -> Tensor:
        """(row, column, frame) of each slot, int64 [G, N, 3]."""
        import torch

        places_N3 = torch.from_numpy(self.grid.places()).to(self.perm_GN.device)
        return places_N3[self.perm_GN]
