"""The ordering `greedy_similarity`: a short tour through the patches, each step to one that looks alike.

n images, C channels, H W pixels, N patches, P numbers in a patch, S tours that are tried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, Grid
from reorder_core.fitted_ordering import FittedOrdering
from reorder_core.patches import cut
from reorder_data_orderings.settings import GreedySimilaritySettings

_NOTHING = 1e-9  # a turn must shorten the tour by this share of its longest step, so that rounding never cycles


class GreedySimilarity(FittedOrdering):
    """The order of a small mean distance between neighbours: a nearest-neighbour tour, shortened by 2-opt.

    A tour and its reverse are equally long: it starts at the end with the lesser patch number.
    """

    name = "greedy_similarity"

    def __init__(self, settings: GreedySimilaritySettings, context: Context) -> None:
        super().__init__()
        self.settings = settings
        self.images = settings.images

    def order_of(self, images_nCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.int64]:
        distance_NN = distances(cut(images_nCHW, grid))
        order_N = nearest_neighbour_tour(distance_NN, self.settings.starts)
        if self.settings.two_opt:
            order_N = two_opt(order_N, distance_NN)
        return order_N if order_N[0] <= order_N[-1] else order_N[::-1].copy()


def distances(patches_nNP: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean over images of the root mean square difference of two patches of one image, [N, N].

    So the length of a tour over N - 1 is the mean distance between neighbours along it.
    """
    n, N, P = patches_nNP.shape
    total_NN = np.zeros((N, N))
    for patches_NP in patches_nNP:
        patches_NP = patches_NP - patches_NP.mean(axis=0)
        square_N = np.einsum("np,np->n", patches_NP, patches_NP)
        sum_NN = square_N[:, None] + square_N
        square_NN = sum_NN - 2 * (patches_NP @ patches_NP.T)
        # what is left of equal patches is float32's rounding: without this, BLAS would decide between them
        total_NN += np.sqrt(np.where(square_NN > 1e-5 * sum_NN, square_NN, 0))
    found_NN: NDArray[np.float64] = (total_NN + total_NN.T) / (2 * n * np.sqrt(P))
    np.fill_diagonal(found_NN, 0.0)
    return found_NN


def tour_length(order_N: NDArray[np.int64], distance_NN: NDArray[np.float64]) -> float:
    """The sum of its steps; an order is an open path, and does not return to its first patch."""
    return float(distance_NN[order_N[:-1], order_N[1:]].sum())


def nearest_neighbour_tour(distance_NN: NDArray[np.float64], starts: int) -> NDArray[np.int64]:
    """The shortest of the tours that always go on to the nearest patch not yet read (Rosenkrantz et al. 1977), [N].

    starts: how many first patches are tried, evenly spread. The lesser patch number decides between equals.
    """
    N = len(distance_NN)
    first_S = np.unique(np.linspace(0, N - 1, min(starts, N)).round().astype(np.int64))
    every_S = np.arange(len(first_S))
    tour_SN = np.empty((len(first_S), N), dtype=np.int64)
    closed_SN = np.zeros((len(first_S), N))  # infinite where a patch was read
    tour_SN[:, 0] = here_S = first_S
    for slot in range(1, N):
        closed_SN[every_S, here_S] = np.inf
        tour_SN[:, slot] = here_S = (distance_NN[here_S] + closed_SN).argmin(axis=1)
    length_S = distance_NN[tour_SN[:, :-1], tour_SN[:, 1:]].sum(axis=1)
    shortest_N: NDArray[np.int64] = tour_SN[length_S.argmin()]
    return shortest_N


def two_opt(order_N: NDArray[np.int64], distance_NN: NDArray[np.float64]) -> NDArray[np.int64]:
    """The tour after turning stretches of it round for as long as one makes it shorter (Croes 1958), [N].

    Slot after slot, all stretches that begin there are weighed at once and the best is turned; it ends where a whole
    round finds none, so that no single turn can help what comes out. A turn costs O(N).
    """
    N = len(order_N)
    # A place that is equally far from all closes the path to a ring: the ends are no special case. It stands first.
    ring_NN = np.zeros((N + 1, N + 1))
    ring_NN[:N, :N] = distance_NN
    tour = np.concatenate([[N], order_N, [N]])
    least = _NOTHING * max(float(distance_NN.max(initial=0.0)), 1e-300)
    idle, begin = 0, 1
    while idle < N:
        length, gain = best_turn(tour, ring_NN, begin)
        if gain > least:
            tour[begin : begin + length] = tour[begin : begin + length][::-1].copy()
            idle = 0
        else:
            idle += 1
            begin = begin % N + 1
    return tour[1:-1].astype(np.int64)


def best_turn(tour: NDArray[np.int64], ring_NN: NDArray[np.float64], begin: int) -> tuple[int, float]:
    """Of all stretches that begin at this slot, the length of the one whose turning saves most, and what it saves."""
    before, first = ring_NN[tour[begin - 1]], ring_NN[tour[begin]]
    last_J, after_J = tour[begin:-1], tour[begin + 1 :]
    gain_J = before[tour[begin]] + ring_NN[last_J, after_J] - before[last_J] - first[after_J]
    best = int(gain_J.argmax())
    return best + 1, float(gain_J[best])
