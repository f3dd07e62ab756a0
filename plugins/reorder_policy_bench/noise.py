"""The images of the bench: how hard each is, what each prefers, and what a policy that looks at them sees.

I images of the training set, B of a batch, N patches, F features of a token, D width of an embedded patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reorder_policy_bench.problems import Planted

if TYPE_CHECKING:
    from reorder_policy_bench.trial import Conditions


@dataclass(frozen=True)
class Noise:
    """The noise of a batch, added to its rewards.

    shift_B: how much easier each image is, whatever the order. weight_BN and sign_BN: an image's own preference, the
    sum over slots of weight[slot] · sign[patch that stands there]; None where there is none.
    tokens_BNF: the tokens of the problem, the image's signs as their last feature where it has a preference.
    """

    shift_B: Tensor
    tokens_BNF: Tensor
    weight_BN: Tensor | None = None
    sign_BN: Tensor | None = None

    def of_orders(self, perm_BN: Tensor) -> Tensor:
        """What is added to the reward of each image in its hard order, [B]."""
        if self.weight_BN is None or self.sign_BN is None:
            return self.shift_B
        return self.shift_B + (self.weight_BN * self.sign_BN.gather(1, perm_BN)).sum(1)

    def of_sequence(self, sequence_BNF: Tensor) -> Tensor:
        """The same of tokens in slot order, with gradient, [B]."""
        if self.weight_BN is None:
            return self.shift_B
        return self.shift_B + (self.weight_BN * sequence_BNF[..., -1]).sum(1)


class Images:
    """Batches of a training set without pictures: an image is a number, and what noise it brings.

    An image's difficulty stays its own for the whole run, under all orders; its preference is drawn at each visit and
    is the same for all of its orders at that visit. Over random orders and images both have the standard deviation
    that the conditions ask for.
    """

    def __init__(self, conditions: Conditions, problem: Planted, seed: int, images: int, width: int) -> None:
        self.problem = problem
        self._batch = conditions.batch
        self._generator = torch.Generator().manual_seed(seed + 1_000_003)
        scale = conditions.noise * problem.noise_unit
        self._shift_I = math.sqrt(1 - conditions.interaction) * scale * self._normal(images)
        self._preference = math.sqrt(conditions.interaction) * scale
        self._pictures = torch.Generator().manual_seed(seed + 2_000_003)  # looking at images changes no noise
        self._code_ND = torch.randn(problem.tokens_NF.shape[0], width, generator=self._pictures)
        self._left_I = torch.zeros(0, dtype=torch.int64)

    def next_batch(self) -> Tensor:
        """The numbers of the next images: each once in every epoch, int64 [B]."""
        if len(self._left_I) < self._batch:
            self._left_I = torch.randperm(len(self._shift_I), generator=self._generator)
        index_B, self._left_I = self._left_I[: self._batch], self._left_I[self._batch :]
        return index_B

    def noise(self, index_B: Tensor) -> Noise:
        B, N = len(index_B), self.problem.tokens_NF.shape[0]
        tokens_BNF = self.problem.tokens_NF.expand(B, -1, -1)
        if self._preference == 0:
            return Noise(self._shift_I[index_B], tokens_BNF)
        weight_BN = self._preference / math.sqrt(N) * self._normal(B, N)
        sign_BN = torch.randint(0, 2, (B, N), generator=self._generator).float() * 2 - 1
        tokens_BNF = torch.cat([tokens_BNF, sign_BN[..., None]], dim=2)
        return Noise(self._shift_I[index_B], tokens_BNF, weight_BN, sign_BN)

    def embedded(self, images: int) -> Tensor:
        """Embedded patches of so many images, float32 [B, N, D]: a random code of each place, a little of their own."""
        N, D = self._code_ND.shape
        return self._code_ND + 0.1 * torch.randn(images, N, D, generator=self._pictures)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)
