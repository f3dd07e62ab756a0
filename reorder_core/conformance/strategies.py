"""Hypothesis strategies: grids, permutations, score vectors, token batches.

B images, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reorder_core.grid import Grid

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("reorder_core.conformance needs Hypothesis: pip install 'reorder[test]'") from error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def grids(max_side: int = 12, max_frames: int = 1, min_size: int = 1) -> st.SearchStrategy[Grid]:
    """Rectangles from 1×1 to `max_side` on a side, of up to `max_frames` frames, of at least `min_size` patches."""
    sides = st.integers(1, max_side)
    found = st.builds(Grid, sides, sides, st.integers(1, max_frames))
    return found.filter(lambda grid: grid.size >= min_size) if min_size > 1 else found


def permutations(n: int) -> st.SearchStrategy[NDArray[np.int64]]:
    """Orders of n patches, int64 [n]."""
    import numpy as np

    return st.permutations(range(n)).map(lambda order: np.array(order, dtype=np.int64))


def score_vectors(n: int, span: float = 300.0) -> st.SearchStrategy[NDArray[np.float32]]:
    """Scores of n patches, float32 [n] within ±span/2; ties and large gaps are likely."""
    import numpy as np

    half = span / 2
    score = st.one_of(
        st.sampled_from([0.0, half, -half]), st.floats(-half, half, width=32, allow_subnormal=False), st.floats(-1, 1)
    )
    return st.lists(score, min_size=n, max_size=n).map(lambda scores: np.array(scores, dtype=np.float32))


def token_batches(n: int | st.SearchStrategy[int], width: int = 16, max_batch: int = 4) -> st.SearchStrategy[Tensor]:
    """Tokens in patch order, float32 [B, N, D], standard normal, B from 1 to `max_batch`."""
    import torch

    def tokens(batch: int, length: int, seed: int) -> Tensor:
        return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(seed))

    lengths = st.just(n) if isinstance(n, int) else n
    return st.builds(tokens, st.integers(1, max_batch), lengths, st.integers(0, 2**31))


def for_all(examples: int, *args: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], None]:
    """Run the function below at once on `examples` examples: the same ones at every call, and no files written."""

    def run(check: Callable[..., None]) -> None:
        quiet = list(HealthCheck)
        limits = settings(
            max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=quiet
        )
        limits(given(*args)(check))()

    return run
