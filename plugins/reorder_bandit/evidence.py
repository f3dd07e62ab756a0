"""What is known of a set of arms after many batches: values with their uncertainty, old batches counting less.

A arms, B images, M orders an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reorder_bandit.batch import blocks

#: So many reads at the average of all arms are taken as seen of each arm: it keeps the equations solvable.
_RIDGE = 1.0


class Evidence(nn.Module):
    """Discounted normal equations of reward = block + arm (see `blocks`), kept in float64 buffers.

    Arms that never met in a batch are compared through those that both met; what all arms of a batch share (the model
    was worse then, the images harder) drops out, so that an arm is not favoured for having been played late.
    """

    laplacian_AA: Tensor
    sum_A: Tensor
    reads_A: Tensor
    squares: Tensor
    freedom: Tensor

    def __init__(self, arms: int, discount: float) -> None:
        super().__init__()
        self.discount = discount
        for name, shape in (
            ("laplacian_AA", (arms, arms)),
            ("sum_A", (arms,)),
            ("reads_A", (arms,)),
            ("squares", ()),
            ("freedom", ()),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def add(self, reward_MB: Tensor, arm_MB: Tensor) -> None:
        """A batch: rewards [M, B] float64, and the arm of each read [M, B]."""
        arms = len(self.sum_A)
        laplacian_AA, sum_A, squares = blocks(reward_MB, arm_MB, arms)
        reads_A = torch.bincount(arm_MB.reshape(-1), minlength=arms)
        m, batch = arm_MB.shape
        fresh = (
            ("laplacian_AA", laplacian_AA),
            ("sum_A", sum_A),
            ("reads_A", reads_A),
            ("squares", squares),
            ("freedom", torch.tensor(m * batch - (1 if m == 1 else batch))),
        )
        for name, value in fresh:
            kept: Tensor = getattr(self, name)
            kept.mul_(self.discount).add_(value.to(kept))

    def forget(self, arm: int) -> None:
        """The arm becomes another one, of which nothing is known; what the others learned through it stays.

        Its effect is eliminated from the equations (their Schur complement), with the squares that it explained.
        """
        link_A, own = self.laplacian_AA[arm].clone(), self.sum_A[arm].clone()
        if link_A[arm] > 0:
            self.laplacian_AA -= torch.outer(link_A, link_A) / link_A[arm]
            self.sum_A -= link_A * own / link_A[arm]
            self.squares -= own.square() / link_A[arm]
            self.freedom -= 1.0
        self.laplacian_AA[arm] = 0.0
        self.laplacian_AA[:, arm] = 0.0
        self.sum_A[arm] = 0.0
        self.reads_A[arm] = 0.0

    def values(self) -> Tensor:
        """The estimated effect of each arm on the reward, [A]; 0 where nothing is known."""
        solved: Tensor = torch.linalg.solve(self._equations(), self.sum_A)
        return solved

    def noise(self) -> Tensor:
        """The standard deviation of one read around block and arm (a scalar); 0 before the first batch."""
        explained = self.sum_A @ self.values()
        freedom = self.freedom - (self.reads_A > 0).sum() + 1
        return ((self.squares - explained).clamp(min=0) / freedom.clamp(min=1.0)).sqrt()

    def against(self, arm: int) -> tuple[Tensor, Tensor]:
        """How far each arm is above `arm`, and the standard error of that, both [A]."""
        spread_AA = torch.linalg.inv(self._equations())
        value_A = spread_AA @ self.sum_A
        own_A = spread_AA.diagonal()
        variance_A = own_A + own_A[arm] - 2 * spread_AA[arm]
        return value_A - value_A[arm], self.noise() * variance_A.clamp(min=0).sqrt()

    def _equations(self) -> Tensor:
        ridge_A = torch.full_like(self.sum_A, _RIDGE)
        return self.laplacian_AA + ridge_A.diag()
