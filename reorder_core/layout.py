"""Where the tokens of a batch stand: the layout that travels with them.

B images, N patches or slots, G groups of images that share an order, D width, S special tokens, L = N + S.
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
    special: where special tokens (class token, registers) stand in the whole sequence of L = N + len(special) tokens,
    ascending places from 0 to L-1. valid_BN: False where a slot is padding.
    """

    grid: Grid
    perm_GN: Tensor
    group_B: Tensor | None = None
    special: tuple[int, ...] = ()
    valid_BN: Tensor | None = None

    def __post_init__(self) -> None:
        if self.perm_GN.ndim != 2:
            raise ValueError(f"perm_GN must be [G, N], not {tuple(self.perm_GN.shape)}")
        if self.group_B is None and self.perm_GN.shape[0] != 1:
            raise ValueError("several orders need group_B: which image reads in which of them")
        if any(not 0 <= place < self.length for place in self.special) or list(self.special) != sorted({*self.special}):
            raise ValueError(f"special places must be ascending and within 0 … {self.length - 1}, not {self.special}")

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

    @property
    def length(self) -> int:
        """L: patches and special tokens."""
        return self.perm_GN.shape[1] + len(self.special)

    def with_special(self, special: tuple[int, ...] = ()) -> Layout:
        """The same order with special tokens at these places of the whole sequence, in place of those it had."""
        return replace(self, special=tuple(special))

    def patch_places(self) -> list[int]:
        """The places of the N patches in the whole sequence, ascending."""
        taken = set(self.special)
        return [place for place in range(self.length) if place not in taken]

    @property
    def valid_BL(self) -> Tensor | None:
        """valid_BN with the special tokens, which are never padding; None where nothing is."""
        if self.valid_BN is None or not self.special:
            return self.valid_BN
        special_BS1 = self.valid_BN.new_ones(self.valid_BN.shape[0], len(self.special), 1)
        return insert(self.valid_BN.unsqueeze(-1), special_BS1, self.special).squeeze(-1)

    def reversed(self) -> Layout:
        """The same order read from the last slot to the first (special tokens keep their places)."""
        valid = None if self.valid_BN is None else self.valid_BN.flip(1)
        return replace(self, perm_GN=self.perm_GN.flip(1), valid_BN=valid)

    def rearranged(self, index: Tensor) -> Layout:
        """The layout of tokens that were put into another order: slot i then holds what stood in slot `index[i]`.

        index: int64 [N], the same for all images, or [B, N], for each its own (G = B in what comes out).
        """
        import torch

        valid_BN = self.valid_BN
        if index.ndim == 1:
            valid = None if valid_BN is None else valid_BN[:, index]
            return replace(self, perm_GN=self.perm_GN[:, index], valid_BN=valid)
        perm = self.perm_GN.expand(index.shape[0], -1) if self.group_B is None else self.perm_GN[self.group_B]
        valid = None if valid_BN is None else valid_BN.gather(1, index)
        every_B = torch.arange(index.shape[0], device=index.device)
        return replace(self, perm_GN=perm.gather(1, index), group_B=every_B, valid_BN=valid)

    def part(self, images: Tensor | slice) -> Layout:
        """The layout of a part of the batch: a slice, or numbers or a mask of its images."""
        group = None if self.group_B is None else self.group_B[images]
        valid = None if self.valid_BN is None else self.valid_BN[images]
        return replace(self, group_B=group, valid_BN=valid)

    def order(self, patches_BND: Tensor) -> Tensor:
        """From patch order to reading order: `sequence = patches[:, perm]`."""
        return self._take(patches_BND, self.perm_GN)

    def restore(self, sequence_BND: Tensor) -> Tensor:
        """From reading order back to patch order (the inverse of `order`)."""
        return self._take(sequence_BND, self.slot_GN)

    def _take(self, tokens_BND: Tensor, index_GN: Tensor) -> Tensor:
        if self.group_B is None:
            return tokens_BND.index_select(1, index_GN[0])
        return take_each(tokens_BND, index_GN[self.group_B])

    def places_GN3(self) -> Tensor:
        """(row, column, frame) of each slot, int64 [G, N, 3]."""
        import torch

        columns, area = self.grid.columns, self.grid.rows * self.grid.columns
        inside_GN = self.perm_GN % area
        return torch.stack([inside_GN // columns, inside_GN % columns, self.perm_GN // area], dim=-1)


def take_each(tokens_BND: Tensor, index_BN: Tensor) -> Tensor:
    """`tokens[b, index[b]]`, [B, N, D]: as `take_along_dim`, but by whole tokens, on a CPU ten times as fast."""
    import torch

    batch, patches, width = tokens_BND.shape
    start_B1 = torch.arange(batch, device=index_BN.device).unsqueeze(1) * patches
    taken = tokens_BND.reshape(batch * patches, width).index_select(0, (index_BN + start_B1).reshape(-1))
    return taken.reshape(batch, index_BN.shape[1], width)


def insert(tokens_BND: Tensor, special_BSD: Tensor, special: tuple[int, ...]) -> Tensor:
    """The sequence [B, N + S, D] in which the S special tokens stand at the ascending places `special`."""
    import torch

    parts, taken = [], 0
    for number, place in enumerate(special):
        patches = place - number - taken
        if patches:
            parts.append(tokens_BND[:, taken : taken + patches])
            taken += patches
        parts.append(special_BSD[:, number : number + 1])
    if taken < tokens_BND.shape[1]:
        parts.append(tokens_BND[:, taken:])
    return torch.cat(parts, dim=1)


def take_apart(tokens_BLD: Tensor, special: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The patches [B, N, D] and the special tokens [B, S, D] of a sequence: `insert` undone."""
    import torch

    if not special:
        return tokens_BLD, tokens_BLD[:, :0]
    patches, tokens, start = [], [], 0
    for place in special:
        patches.append(tokens_BLD[:, start:place])
        tokens.append(tokens_BLD[:, place : place + 1])
        start = place + 1
    patches.append(tokens_BLD[:, start:])
    patches = [part for part in patches if part.shape[1]]
    return _joined(patches), torch.cat(tokens, dim=1)


def _joined(parts: list[Tensor]) -> Tensor:
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
