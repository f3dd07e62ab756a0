"""The directions of a scan: in which orders one sequence is read, and how the readings are put back together.

Shared by both generations of Mamba. Each direction has parameters of its own (`SUFFIXES`); projections in and out are
shared. B images, N slots, L steps (patches and special tokens), E inner width, R directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from reorder_core import Grid, Layout, UsageError

Direction = Literal["causal", "bidirectional", "four", "cross"]

SUFFIXES = ("", "_b", "_c", "_c_b", "_d", "_d_b", "_e", "_e_b")
"""What the parameters of each direction are called by: those of ARM's mixer (`conv1d_c_b`), carried on to eight."""


class Path(NamedTuple):
    """One direction. At step t it reads `index[t]`, a place in the sequence as it stands; `back` is the inverse.

    index, back: int64 [L], or [B, L] where images differ; both None: the sequence as it stands, from its last step to
    its first where `reverse` is True. valid_BL: which steps of *this path* are no padding; None: all of them.
    """

    index: Tensor | None = None
    back: Tensor | None = None
    reverse: bool = False
    valid_BL: Tensor | None = None

    def read(self, steps_BLE: Tensor) -> Tensor:
        """The sequence in the order of this path."""
        if self.index is None:
            return steps_BLE.flip(1) if self.reverse else steps_BLE
        return _take(steps_BLE, self.index)

    def put_back(self, steps_BLE: Tensor) -> Tensor:
        """From the order of this path to the order in which the sequence stands (the inverse of `read`)."""
        if self.back is None:
            return steps_BLE.flip(1) if self.reverse else steps_BLE
        return _take(steps_BLE, self.back)


def directions(direction: Direction, orders: int = 4) -> int:
    """R, the number of directions; `orders` is that of a cross-scan. `SUFFIXES[:R]` are the names."""
    return {"causal": 1, "bidirectional": 2, "four": 4, "cross": orders}[direction]


def layouts_wanted(direction: Direction, orders: int = 4) -> int:
    """How many layouts the mixer wants at once: an order for each direction of a cross-scan, else one."""
    return orders if direction == "cross" else 1


def decay_name(suffix: str) -> str:
    """The name of the decay rates: `A_log`, `A_b_log`, `A_c_log`, …; all other names end with the suffix."""
    return f"A{suffix}_log"


def plan_paths(direction: Direction, layout: Layout | tuple[Layout, ...], orders: int = 4) -> tuple[Path, ...]:
    """The path of each direction, computed once a forward pass and shared by all blocks.

    causal: first to last. bidirectional: also last to first (Vision Mamba, arXiv 2401.09417).

    four: these two, and both again along the columns, all from ONE order (ARM, arXiv 2406.07537, as fine-tuned). The
    published code lays the sequence out as a square and transposes it; here it is laid out in the grid's own rows and
    columns (frame by frame), `slot = row · columns + column`, and is read column by column. It is the grid of *slots*:
    in row-major order that is the columns of the image, in any other order every `columns`-th token of the sequence.
    Special tokens keep their places (the published class token stands in the middle), but a reversed path reads them
    in reverse with all others.

    cross: one path for each of R layouts (VMamba, arXiv 2401.10166, reads along rows and columns, each also reversed).
    Tokens stand in the order of the first; path r reads, at its slot s, the patch that order r puts there. Special
    tokens keep their places, in every second path (those called `…_b`) counted from the end: a class token at the
    start would otherwise never read a patch. So two orders of which the second is the first reversed are exactly
    bidirectional. Each layout may have one order, or one for each group of images.

    Raises UsageError for a number of layouts other than R, and for orders of other grids or lengths.
    """
    given = layout if isinstance(layout, tuple) else (layout,)
    wanted = layouts_wanted(direction, orders)
    if len(given) != wanted:
        raise UsageError(
            f"a Mamba of direction '{direction}' reads {wanted} order{'s' * (wanted > 1)} at once, not {len(given)}: "
            f"{'give it one layout a direction, or change `orders`' if wanted > 1 else 'choose direction cross'}"
        )
    first = given[0]
    valid_BL = first.valid_BL
    if direction == "cross":
        further = (
            _path(_with_special(_crossed(first, other), first, mirrored=bool(r % 2)), valid_BL)
            for r, other in enumerate(given[1:], start=1)
        )
        return (Path(valid_BL=valid_BL), *further)
    paths: tuple[Path, ...] = (Path(valid_BL=valid_BL),)
    if direction != "causal":
        paths += (Path(reverse=True, valid_BL=None if valid_BL is None else valid_BL.flip(1)),)
    if direction == "four":
        columns_L = _with_special(_by_columns(first.grid, first.perm_GN.shape[1], first.perm_GN.device), first)
        paths += (_path(columns_L, valid_BL), _path(columns_L.flip(-1), valid_BL))
    return paths


def average(outputs_RBLE: Sequence[Tensor]) -> Tensor:
    """The mean of the directions, one after the other: their sum would overflow in fp16."""
    mean_BLE = outputs_RBLE[0]
    for r, output_BLE in enumerate(outputs_RBLE[1:], start=2):
        mean_BLE = torch.lerp(mean_BLE, output_BLE, 1 / r)
    return mean_BLE


def _take(steps_BLE: Tensor, index: Tensor) -> Tensor:
    if index.ndim == 1:
        return steps_BLE.index_select(1, index)
    return steps_BLE.take_along_dim(index.unsqueeze(-1), dim=1)


def _path(index: Tensor, valid_BL: Tensor | None) -> Path:
    return Path(index, index.argsort(dim=-1), valid_BL=None if valid_BL is None else _valid(valid_BL, index))


def _valid(valid_BL: Tensor, index: Tensor) -> Tensor:
    return valid_BL.index_select(1, index) if index.ndim == 1 else valid_BL.take_along_dim(index, dim=1)


def _by_columns(grid: Grid, N: int, device: torch.device) -> Tensor:
    """[N]: the slots of the sequence, laid out as the grid, read column by column within each frame."""
    if grid.size != N:
        raise UsageError(
            f"the columns of a sequence of {N} tokens on a grid of {grid} are not known: "
            f"choose direction bidirectional for a sequence that is shorter than its grid"
        )
    return torch.arange(N, device=device).view(grid.frames, grid.rows, grid.columns).mT.reshape(N)


def _crossed(first: Layout, other: Layout) -> Tensor:
    """[N] or [B, N]: in which slot of the first order stands the patch that the other order has at its slot s."""
    if other.perm_GN.shape[1] != first.perm_GN.shape[1]:
        raise UsageError(
            f"the orders of a cross-scan must be of the same patches, not of {first.perm_GN.shape[1]} "
            f"and {other.perm_GN.shape[1]}"
        )
    slot_XN, perm_XN = _of_images(first.slot_GN, first), _of_images(other.perm_GN, other)
    rows = max(slot_XN.shape[0], perm_XN.shape[0])
    index_XN = slot_XN.expand(rows, -1).gather(1, perm_XN.expand(rows, -1))
    return index_XN[0] if first.group_B is None and other.group_B is None else index_XN


def _of_images(order_GN: Tensor, layout: Layout) -> Tensor:
    """[1, N] where all images share the order, else [B, N]."""
    return order_GN if layout.group_B is None else order_GN[layout.group_B]


def _with_special(index: Tensor, layout: Layout, mirrored: bool = False) -> Tensor:
    """From slots of patches to places in the whole sequence; special tokens keep their places, or mirror them."""
    if not layout.special:
        return index
    step_L = torch.arange(layout.length, device=index.device)
    place_N = torch.tensor(layout.patch_places(), device=index.device)
    if mirrored:
        own_N, rest_L = layout.length - 1 - place_N.flip(0), step_L.flip(0)
    else:
        own_N, rest_L = place_N, step_L
    return rest_L.expand(*index.shape[:-1], layout.length).scatter(-1, own_N.expand(index.shape), place_N[index])
