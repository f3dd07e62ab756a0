"""How many codes are used, and whether that is a codebook or a collapsed one.

K codes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reorder_core import RunError

logger = logging.getLogger(__name__)

HALF = 0.5
"""a codebook of which less than this share is used gets a warning"""


@dataclass(frozen=True)
class Usage:
    """count_K: how often each code was chosen, int64 [K]."""

    count_K: NDArray[np.int64]

    @property
    def codes(self) -> int:
        return len(self.count_K)

    @property
    def used(self) -> int:
        return int((self.count_K > 0).sum())

    @property
    def perplexity(self) -> float:
        """exp of the codes' entropy: how many codes there would be, were all equally frequent."""
        share_K = self.count_K[self.count_K > 0] / self.count_K.sum()
        return float(np.exp(-(share_K * np.log(share_K)).sum()))

    @property
    def warning(self) -> str | None:
        """One sentence where fewer than half of the codes are used."""
        if self.used >= HALF * self.codes:
            return None
        return (
            f"only {self.used} of {self.codes} codes are used ({self.used / self.codes:.1%}): train with fewer codes "
            f"or for longer"
        )

    def judge(self, least_used: float) -> None:
        """Log the warning. Raises `RunError` where less than the share `least_used` is used."""
        if self.used < least_used * self.codes:
            raise RunError(
                f"the codebook collapsed: only {self.used} of {self.codes} codes are used ({self.used / self.codes:.1%}"
                f", at least {least_used:.1%} are due): train with fewer codes or for longer, or lower 'least_used'"
            )
        if self.warning is not None:
            logger.warning("%s", self.warning)
