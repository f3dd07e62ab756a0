"""The ordering `spectral`: along the Fiedler vector of the graph of patches, weighted by their correlations.

n images, C channels, H W pixels, N patches, P numbers in a patch, M patches of a connected part.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.csgraph import connected_components

from reorder_core import Context, Grid
from reorder_core.fitted_ordering import FittedOrdering
from reorder_core.patches import cut
from reorder_data_orderings.settings import SpectralSettings

_NO_EDGE = 1e-9  # correlations below it are rounding
_SAME = 1e-8  # eigenvalues, or entries of the vector, that differ by less than this share are equal


class Spectral(FittedOrdering):
    """Patches that vary together over the images stand near each other. Ties and unconnected parts: see `seriate`."""

    name = "spectral"

    def __init__(self, settings: SpectralSettings, context: Context) -> None:
        super().__init__()
        self.images = settings.images

    def order_of(self, images_nCHW: NDArray[np.float32], grid: Grid) -> NDArray[np.int64]:
        return seriate(correlations(cut(images_nCHW, grid)))


def correlations(patches_nNP: NDArray[np.float32]) -> NDArray[np.float64]:
    """How alike two places vary, [N, N], from -1 to 1: Σ x_i x_j / √(Σ x_i² Σ x_j²) over images and pixels, where
    each pixel is counted from its mean over the images.

    A place that shows the same in every image varies with nothing: its row, column and diagonal are 0.
    """
    n, N, P = patches_nNP.shape
    # from the mean over images first in float64, as a bright pixel that hardly changes would drown in float32
    centred_nNP = (patches_nNP - patches_nNP.mean(axis=0, dtype=np.float64)).astype(np.float32)
    flat_NX = centred_nNP.transpose(1, 0, 2).reshape(N, n * P)
    size_N = np.sqrt(np.einsum("nx,nx->n", flat_NX, flat_NX, dtype=np.float64))
    still_N = size_N <= 1e-6 * np.abs(patches_nNP).max() * np.sqrt(n * P)
    flat_NX /= np.where(still_N, 1.0, size_N).astype(np.float32)[:, None]
    flat_NX[still_N] = 0.0
    found_NN: NDArray[np.float64] = (flat_NX @ flat_NX.T).astype(np.float64)
    return (found_NN + found_NN.T) / 2


def seriate(similarity_NN: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order of a symmetric similarity by spectral seriation (Atkins et al. 1998, section 3), int64 [N].

    Edges weigh what is above 0; a negative similarity is no edge. Where some order makes similarity fall with distance
    everywhere (a Robinson matrix), it is found. Each connected part is ordered by its own Fiedler vector; the parts
    follow each other by size, those of one size by their least patch, so that patches without an edge come last.
    """
    weight_NN = np.where(similarity_NN > _NO_EDGE, similarity_NN, 0.0)
    np.fill_diagonal(weight_NN, 0.0)
    parts, part_N = connected_components(weight_NN > 0, directed=False)
    members = sorted((np.flatnonzero(part_N == part) for part in range(parts)), key=lambda m_M: (-len(m_M), m_M[0]))
    ordered = [m_M[_along(fiedler_vector(weight_NN[np.ix_(m_M, m_M)]))] for m_M in members]
    order_N: NDArray[np.int64] = np.concatenate(ordered).astype(np.int64)
    return order_N


def fiedler_vector(weight_MM: NDArray[np.float64]) -> NDArray[np.float64]:
    """The unit vector f that minimises Σ w_ij (f_i - f_j)² with Σ f = 0 (Fiedler 1973): the eigenvector to the second
    smallest eigenvalue of the Laplacian of a connected graph, [M].

    Where that eigenvalue is not simple (rows and columns of a square grid, say), it is the member of its eigenspace
    nearest to the ramp 0 … M-1. So the sign is fixed too: f rises with the patch number. An eigenspace at a right angle
    to the ramp is given the first patch as its direction, or the first that has a part in it.
    """
    M = len(weight_MM)
    if M == 1:
        return np.zeros(1)
    laplacian_MM = np.diag(weight_MM.sum(axis=1)) - weight_MM
    # The constant vector, whose eigenvalue is 0, goes to the far end: a weakly connected graph would mix the two.
    lift = 2 * np.trace(laplacian_MM)
    values_M, vectors_MM = eigh(laplacian_MM + lift / M)
    space_ME = vectors_MM[:, values_M - values_M[0] <= _SAME * max(values_M[M - 2], 1e-300)]
    for direction_M in (np.arange(M) - (M - 1) / 2, *np.eye(M)):
        shadow_M: NDArray[np.float64] = space_ME @ (space_ME.T @ direction_M)
        length = np.linalg.norm(shadow_M)
        if length > 1e-6 * np.linalg.norm(direction_M):
            return shadow_M / length
    raise AssertionError("an eigenspace has a member that is not at a right angle to every axis")


def _along(vector_M: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ascending; entries that are equal up to rounding stand by their number."""
    rising_M = np.argsort(vector_M, kind="stable")
    step_M = np.diff(vector_M[rising_M], prepend=vector_M[rising_M[0]])
    level_M = np.empty(len(vector_M), dtype=np.int64)
    level_M[rising_M] = np.cumsum(step_M > _SAME * np.abs(vector_M).max())
    return np.lexsort((np.arange(len(vector_M)), level_M))
