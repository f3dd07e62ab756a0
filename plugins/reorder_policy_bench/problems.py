"""Planted problems: a reward of an order whose mean over random orders is 0 and whose best value is 1.

Each is written twice in one function. The reward is a function of *tokens in slot order* that is smooth in the tokens,
so that an order that is a soft matrix gets a gradient through it; where the tokens are read in a hard order it is the
plain count that its name says. F features of a token, N patches or slots, G sequences (orders or images).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reorder_core import Grid

_ORDERS_FOR_SPREAD = 4096  # random orders whose rewards give a standard deviation that has no closed form


@dataclass(frozen=True)
class Planted:
    """A planted problem of one grid.

    tokens_NF: float32, what the patches carry. raw: sequences [G, N, F] -> values [G], higher is better. mean, spread:
    the raw value over uniform random orders, mean and standard deviation. top: its best value. best_N: an order that
    has it. counted: the value of hard orders [G, N] -> [G], where that is quicker without tokens.
    """

    tokens_NF: Tensor
    raw: Callable[[Tensor], Tensor]
    mean: float
    spread: float
    top: float
    best_N: NDArray[np.int64]
    counted: Callable[[Tensor], Tensor] | None = None

    @property
    def noise_unit(self) -> float:
        """The standard deviation of the reward over random orders, in units of the reward."""
        return self.spread / (self.top - self.mean)

    def reward(self, sequence_GNF: Tensor) -> Tensor:
        """Rewards [G], with gradient: 0 is the mean over random orders, 1 the optimum."""
        return (self.raw(sequence_GNF) - self.mean) / (self.top - self.mean)

    def of_orders(self, perm_GN: Tensor) -> Tensor:
        """Rewards [G] of hard orders, `perm[slot] = patch`."""
        raw_G = self.raw(self.tokens_NF[perm_GN]) if self.counted is None else self.counted(perm_GN)
        return (raw_G - self.mean) / (self.top - self.mean)


def footrule(grid: Grid, rng: np.random.Generator) -> Planted:
    """A hidden uniform permutation. Value: minus Spearman's footrule, Σ |slot − hidden slot| over the patches.

    Mean and variance over random orders: (N²−1)/3 and (N+1)(2N²+7)/45 (Diaconis & Graham 1977).
    """
    N = grid.size
    best_N = rng.permutation(N)
    tokens_N1 = torch.from_numpy(np.argsort(best_N)).float()[:, None]
    slot_N = torch.arange(N, dtype=torch.float32)
    return Planted(
        tokens_N1,
        lambda sequence_GNF: -(sequence_GNF[..., 0] - slot_N).abs().sum(-1),
        mean=-(N**2 - 1) / 3,
        spread=math.sqrt((N + 1) * (2 * N**2 + 7) / 45),
        top=0.0,
        best_N=best_N,
    )


def salient_last(grid: Grid, rng: np.random.Generator) -> Planted:
    """A quarter of the patches, anywhere, is salient. Value: the mean slot of those; best: they stand last."""
    return _last(grid, rng.permutation(grid.size))


def blob_last(grid: Grid, rng: np.random.Generator) -> Planted:
    """As `salient_last`, but the salient patches lie together, as those of an object do: nearest to a random place."""
    places_N2 = grid.places()[:, :2].astype(np.float64)
    centre_2 = rng.uniform(size=2) * (grid.rows - 1, grid.columns - 1)
    distance_N = ((places_N2 - centre_2) ** 2).sum(1)
    return _last(grid, np.argsort(-distance_N, kind="stable"))


def _last(grid: Grid, best_N: NDArray[np.int64]) -> Planted:
    N = grid.size
    k = max(1, N // 4)
    salient_N1 = torch.zeros(N, 1)
    salient_N1[best_N[-k:]] = 1.0 / k
    slot_N = torch.arange(N, dtype=torch.float32)
    # the mean of k of the numbers 0 … N−1, drawn without replacement
    variance = (N**2 - 1) / 12 / k * (N - k) / (N - 1)
    return Planted(
        salient_N1,
        lambda sequence_GNF: (sequence_GNF[..., 0] * slot_N).sum(-1),
        mean=(N - 1) / 2,
        spread=math.sqrt(variance),
        top=N - 1 - (k - 1) / 2,
        best_N=best_N,
    )


def adjacency(grid: Grid, rng: np.random.Generator) -> Planted:
    """Value: how many of the N−1 steps of the order go to a patch that touches the last one (4 neighbours).

    Nothing is hidden, but there are only few good orders among all: 1 for a snake, Hilbert's curve, a spiral.
    Tokens are one-hot rows and one-hot columns, and the value is a product of them, so that a soft order which blurs
    the patches gains nothing.
    """
    rows, columns, N = grid.rows, grid.columns, grid.size
    places_N3 = torch.from_numpy(grid.places())
    tokens_NF = torch.cat([torch.eye(rows)[places_N3[:, 0]], torch.eye(columns)[places_N3[:, 1]]], dim=1)

    def raw(sequence_GNF: Tensor) -> Tensor:
        here, there = sequence_GNF[:, :-1], sequence_GNF[:, 1:]
        row, column = here[..., :rows], here[..., rows:]
        next_row, next_column = there[..., :rows], there[..., rows:]
        down = (row[..., 1:] * next_row[..., :-1] + row[..., :-1] * next_row[..., 1:]).sum(-1)
        right = (column[..., 1:] * next_column[..., :-1] + column[..., :-1] * next_column[..., 1:]).sum(-1)
        return (down * (column * next_column).sum(-1) + right * (row * next_row).sum(-1)).sum(-1)

    def counted(perm_GN: Tensor) -> Tensor:
        down_GS = torch.diff(perm_GN // columns, dim=1).abs()
        right_GS = torch.diff(perm_GN % columns, dim=1).abs()
        return (down_GS + right_GS == 1).sum(1).float()

    snake = np.arange(N).reshape(rows, columns)
    snake[1::2] = snake[1::2, ::-1].copy()
    edges = rows * (columns - 1) + columns * (rows - 1)
    return Planted(
        tokens_NF,
        raw,
        mean=(N - 1) * edges / (N * (N - 1) / 2),
        spread=_adjacency_spread(rows, columns),
        top=float(N - 1),
        best_N=snake.ravel(),
        counted=counted,
    )


@lru_cache(maxsize=16)
def _adjacency_spread(rows: int, columns: int) -> float:
    """Standard deviation of the number of touching steps over random orders, by drawing them."""
    N, rng = rows * columns, np.random.default_rng(0)
    counts = []
    for _ in range(-(-_ORDERS_FOR_SPREAD * N // 2**20)):
        tile_GN = np.tile(np.arange(N), (min(_ORDERS_FOR_SPREAD, 2**20 // N), 1))
        perm_GN = rng.permuted(tile_GN, axis=1)
        distance_GS = np.abs(np.diff(perm_GN // columns, axis=1)) + np.abs(np.diff(perm_GN % columns, axis=1))
        counts.append((distance_GS == 1).sum(axis=1))
    return float(np.concatenate(counts).std())


#: Name -> what makes a problem of a grid with a generator of its own.
PROBLEMS: dict[str, Callable[[Grid, np.random.Generator], Planted]] = {
    "footrule": footrule,
    "salient_last": salient_last,
    "blob_last": blob_last,
    "adjacency": adjacency,
}
#: What is run where nothing is asked for.
USUAL = ("footrule", "salient_last", "adjacency")


def grid_of(N: int) -> Grid:
    """The grid of N patches that is nearest to a square."""
    rows = next(side for side in range(math.isqrt(N), 0, -1) if N % side == 0)
    return Grid(rows, N // rows)
