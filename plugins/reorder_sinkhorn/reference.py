"""The legible twin of `sinkhorn.py`: alternating normalisation in log space, differentiated by autograd.

N rows (slots) and columns (patches); leading dimensions are matrices of their own.
"""

from __future__ import annotations

from torch import Tensor


def sinkhorn_reference(scores: Tensor, iterations: int) -> Tensor:
    """S^iterations(scores), [..., N, N] (Mena et al. 2018, arXiv 1802.08665, equations 1 and 2, taken in logarithms).

    Every iteration divides the rows of exp(scores) by their sums, then the columns. So columns sum to one, and rows do
    in the limit. Memory and time: autograd keeps two N×N matrices for every half iteration.
    """
    log_S = scores
    for _ in range(iterations):
        log_S = log_S - log_S.logsumexp(dim=-1, keepdim=True)
        log_S = log_S - log_S.logsumexp(dim=-2, keepdim=True)
    return log_S.exp()
