"""Permutations, `perm[slot] = patch`: validate, invert, compose, apply, and how far two of them are apart.

Everything takes NumPy arrays and torch tensors alike, [N] or [..., N] with one permutation a row, and answers in
kind: an array for arrays, a tensor on the same device for tensors. torch is never imported here; a tensor brings it.
`sequence = patches[:, perm]` everywhere; the inverse says in which slot a patch stands.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from reorder_core.errors import ReorderError
from reorder_core.grid import Grid

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Array = TypeVar("Array", NDArray[Any], Tensor)
else:
    Array = TypeVar("Array")


def identity(n: int) -> NDArray[np.int64]:
    """The order that changes nothing, int64 [n]: patch i in slot i."""
    return np.arange(n, dtype=np.int64)


def validate(perm: Any, n: int | None = None, what: str = "order") -> Any:
    """The same permutation as int64 (a list becomes a NumPy array), if it is one of 0 … N-1 along its last axis.

    n: the length that it must have. what: how an error calls it.
    Raises `ReorderError` for a wrong length, a repeated, missing or unknown patch, or numbers that are not whole.
    """
    order = _as_integers(perm, what)
    length = order.shape[-1]
    if n is not None and length != n:
        raise ReorderError(f"{what} has {length} patches where {n} are needed: make it for this grid")
    rows = np.asarray(order.reshape(-1, length) if not _is_tensor(order) else order.reshape(-1, length).cpu())
    for row_N in rows:
        outside_N = row_N[(row_N < 0) | (row_N >= length)]
        if outside_N.size:
            raise ReorderError(f"{what} names patch {outside_N[0]}, but its {length} patches are 0 to {length - 1}")
        count_N = np.bincount(row_N, minlength=length)
        if (count_N != 1).any():
            repeated, missing = int(np.argmax(count_N > 1)), int(np.argmax(count_N == 0))
            raise ReorderError(
                f"{what} repeats patch {repeated} and leaves out patch {missing}: name every patch exactly once"
            )
    return order


def invert(perm: Array) -> Array:
    """The inverse: `invert(perm)[patch] = slot`, [..., N]."""
    inverse: Array = _put(perm, _like_arange(perm))
    return inverse


def compose(first: Array, then: Array) -> Array:
    """Read in order `first`, then put that sequence in order `then`: `compose(first, then)[slot] = first[then[slot]]`.

    So `apply(compose(p, q), x) == apply(q, apply(p, x))` and `invert(compose(p, q)) == compose(invert(q), invert(p))`.
    """
    composed: Array = _take(first, then)
    return composed


def apply(perm: Array, values: Array, axis: int = -1) -> Array:
    """`values` in the order `perm` along `axis`: `out[..., slot, ...] = values[..., perm[slot], ...]`.

    perm [N] orders every entry alike; perm [B, N] orders entry b of the first axis of `values` by its own row.
    Raises `ReorderError` where the axis has another length than the permutation.
    """
    axis = axis % values.ndim
    n = perm.shape[-1]
    if values.shape[axis] != n:
        raise ReorderError(f"axis {axis} has {values.shape[axis]} entries, the order has {n}: choose another axis")
    if perm.ndim == 1:
        pick: Any = (slice(None),) * axis + (perm,)
        chosen: Array = values[pick]
        return chosen
    if perm.ndim != 2 or axis == 0 or perm.shape[0] not in (1, values.shape[0]):
        raise ReorderError(
            f"an order of shape {tuple(perm.shape)} does not fit values of shape {tuple(values.shape)}: "
            f"give one order, or one for each entry of the first axis"
        )
    index = perm.reshape(perm.shape[0], *(n if i == axis else 1 for i in range(1, values.ndim)))
    taken: Array = _take(values, index, axis)
    return taken


def kendall_tau(a: Array, b: Array) -> Any:
    """Kendall's τ of two orders: 1 where they agree, -1 where one is the other backwards; a float, or [...] for rows.

    The share of pairs of patches read in the same succession less the share read in the other one; O(N log N).
    """
    n = a.shape[-1]
    inversions = _inversions(_take(invert(a), b))
    tau = 1.0 - 4.0 * _as_float(inversions) / max(n * (n - 1), 1)
    return _scalar(tau)


def spearman_footrule(a: Array, b: Array) -> Any:
    """How many slots the patches lie apart in two orders, summed over patches: 0 … N²//2; an int, or [...] for rows."""
    return _scalar(abs(invert(a) - invert(b)).sum(-1))


def cayley(a: Array, b: Array) -> Any:
    """The fewest exchanges of two patches that turn one order into the other, 0 … N-1: N less the number of cycles."""
    cycle = _take(invert(a), b)
    here = _like_arange(cycle)
    least, jump = here, cycle
    for _ in range(max(cycle.shape[-1] - 1, 0).bit_length()):  # the least member of each cycle, by pointer doubling
        other = _take(least, jump)
        least = _smaller(least, other)
        jump = _take(jump, jump)
    return _scalar(cycle.shape[-1] - (least == here).sum(-1))


def steps(perm: Array, grid: Grid) -> Array:
    """(rows, columns, frames) from each slot to the next, int64 [..., N-1, 3]."""
    places: Any = grid.places()
    if _is_tensor(perm):
        import torch

        places = torch.from_numpy(places).to(perm.device)
    if perm.shape[-1] != grid.size:
        raise ReorderError(f"an order of {perm.shape[-1]} patches is none of a {grid} grid: it needs {grid.size}")
    path = places[perm]
    moved: Array = path[..., 1:, :] - path[..., :-1, :]
    return moved


def unit_step_share(perm: Array, grid: Grid) -> Any:
    """The share of steps that go to a side neighbour, 0 … 1; 1 for a single patch. A float, or [...] for rows."""
    unit = (abs(steps(perm, grid)).sum(-1) == 1).sum(-1)
    if grid.size == 1:
        return _scalar(_as_float(unit) + 1.0)
    return _scalar(_as_float(unit) / (grid.size - 1))


def _inversions(perm: Any) -> Any:
    """Pairs of slots in the wrong succession, [...]: sort by one bit after the other, highest first, and count.

    When the values are sorted by their higher bits, those that share them stand in a block that begins at their least
    value; within a block every one that stands before a zero of the present bit is one inversion.
    """
    n = perm.shape[-1]
    here = _like_arange(perm)
    total = 0 * perm.sum(-1)
    for bit in reversed(range(max(n - 1, 0).bit_length())):
        is_one = (perm >> bit) & 1
        start = (here >> (bit + 1)) << (bit + 1)
        ones_through = is_one.cumsum(-1)
        ones_before = ones_through - is_one
        ones_before = ones_before - _take(ones_before, start)
        total = total + ((1 - is_one) * ones_before).sum(-1)
        zeros_before = here - start - ones_before
        target = start + is_one * ((1 << bit) + ones_before) + (1 - is_one) * zeros_before
        perm = _put(target, perm)
    return total


def _is_tensor(value: Any) -> TypeGuard[torch.Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _as_integers(perm: Any, what: str) -> Any:
    if _is_tensor(perm):
        whole = not (perm.is_floating_point() or perm.is_complex() or str(perm.dtype) == "torch.bool")
        order: Any = perm.long() if whole else perm
    else:
        try:
            order = np.asarray(perm)
        except ValueError as error:
            raise ReorderError(f"{what} is no list of patch numbers: give each patch once, as whole numbers") from error
        whole = order.dtype.kind in "iu"
        order = order.astype(np.int64) if whole else order
    if order.ndim == 0 or order.shape[-1] == 0:
        raise ReorderError(f"{what} is empty: name every patch exactly once")
    if not whole:
        raise ReorderError(f"{what} holds something else than whole numbers: patches are numbered 0, 1, 2, …")
    return order


def _like_arange(perm: Any) -> Any:
    """0 … N-1 in the shape and kind of `perm`."""
    n = perm.shape[-1]
    if _is_tensor(perm):
        import torch

        return torch.arange(n, device=perm.device).expand(perm.shape)
    return np.broadcast_to(np.arange(n, dtype=np.int64), perm.shape)


def _take(values: Any, index: Any, axis: int = -1) -> Any:
    if _is_tensor(values):
        import torch

        return torch.take_along_dim(values, index, dim=axis)
    return np.take_along_axis(values, index, axis=axis)


def _put(index: Any, values: Any) -> Any:
    """`out[..., index] = values` along the last axis."""
    if _is_tensor(index):
        return index.new_empty(index.shape).scatter_(-1, index, values)
    out = np.empty(index.shape, dtype=np.int64)
    np.put_along_axis(out, index, values, axis=-1)
    return out


def _smaller(a: Any, b: Any) -> Any:
    if _is_tensor(a):
        import torch

        return torch.minimum(a, b)
    return np.minimum(a, b)


def _as_float(value: Any) -> Any:
    return value.double() if _is_tensor(value) else np.asarray(value, dtype=np.float64)


def _scalar(value: Any) -> Any:
    """A Python number for one permutation, the array or tensor for several."""
    return value.item() if getattr(value, "ndim", 0) == 0 else value
