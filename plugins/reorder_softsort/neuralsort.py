"""NeuralSort block by block, so that no more than some rows of its matrix exist (Grover et al. 2019, equation 5).

    P_ij = softmax(((N + 1 − 2i) a_j − c_j) / τ) over j,   c_j = Σ_k |a_j − a_k|,   i = 1 … N,

for scores a that fall from slot to slot. The exponent is a product of i and a_j, so no recurrence serves: time is
O(N²) for each feature, memory O(N) for each row of a block.

N slots, R rows of a block, F features (images times width).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

#: About how many entries of the matrix exist at once: all of it below N = 1,024.
ENTRIES = 1_048_576


class NeuralSortRows:
    """The rows of NeuralSort's matrix for one vector of falling scores: applied, and differentiated."""

    slab = 2_097_152  # each slab makes the rows anew, which costs as much as some images do

    def __init__(self, falling_N: Tensor, tau: float, dtype: torch.dtype) -> None:
        """falling_N: float64 [N]. tau > 0, in units of the scores. dtype: of the tokens."""
        self.tau, self.dtype, self.falling_N = tau, dtype, falling_N
        n = falling_N.shape[0]
        slot_N = torch.arange(n, dtype=torch.float64, device=falling_N.device)
        self._lift_N = n - 1 - 2 * slot_N  # N + 1 − 2i with i from 1; also ∂c_j/∂a_j
        total_N = falling_N.cumsum(0)
        # Σ_{k<j} (a_k − a_j) + Σ_{k>j} (a_j − a_k)
        self._spread_N = 2 * total_N - falling_N - total_N[-1] + self._lift_N * falling_N
        self._grad_a_N = torch.zeros_like(falling_N)
        self._grad_c_N = torch.zeros_like(falling_N)

    def apply(self, x_NF: Tensor) -> Tensor:
        """y = P x, [N, F]."""
        y_NF = torch.empty_like(x_NF)
        for rows in self._blocks():
            torch.mm(self._weights(rows), x_NF, out=y_NF[rows])
        return y_NF

    def backward(self, x_NF: Tensor, grad_NF: Tensor) -> Tensor:
        """∂L/∂x of these features, [N, F]; what they say about the scores is added up for `score_gradient`."""
        grad_x_NF = torch.zeros_like(x_NF)
        for rows in self._blocks():
            weight_RN = self._weights(rows)
            grad_x_NF.addmm_(weight_RN.T, grad_NF[rows])
            grad_RN = grad_NF[rows] @ x_NF.T
            inner_R1 = (weight_RN * grad_RN).sum(1, keepdim=True)
            logit_RN = grad_RN.sub_(inner_R1).mul_(weight_RN).double()
            self._grad_a_N += self._lift_N[rows] @ logit_RN
            self._grad_c_N -= logit_RN.sum(0)
        return grad_x_NF

    def score_gradient(self) -> Tensor:
        """∂L/∂a, float64 [N], over all features that `backward` has seen."""
        total_N = self._grad_c_N.cumsum(0)
        later_less_earlier_N = total_N[-1] - 2 * total_N + self._grad_c_N  # ∂c_j/∂a_k is 1 for k < j, −1 for k > j
        return (self._grad_a_N + self._lift_N * self._grad_c_N + later_less_earlier_N) / self.tau

    def _blocks(self) -> Iterator[slice]:
        n = self.falling_N.shape[0]
        rows = max(1, ENTRIES // n)
        for start in range(0, n, rows):
            yield slice(start, min(n, start + rows))

    def _weights(self, rows: slice) -> Tensor:
        """Some rows of P, [R, N]. A row is largest at its own slot, which therefore serves as its maximum."""
        logit_RN = torch.addr(-self._spread_N, self._lift_N[rows], self.falling_N)
        at_own_R1 = (self._lift_N[rows] * self.falling_N[rows] - self._spread_N[rows])[:, None]
        return logit_RN.sub_(at_own_R1).div_(self.tau).to(self.dtype).softmax(dim=-1)
