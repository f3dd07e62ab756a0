"""How the checks see that a gradient reaches every parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reorder_core.conformance.building import require


def weighted(values: Sequence[Tensor], draw: torch.Generator) -> Tensor:
    """A sum with random weights: unlike a plain sum, no norm makes its gradient zero."""
    parts = [(each * torch.randn(each.shape, generator=draw)).sum() for each in values]
    return torch.stack(parts).sum()


def require_gradients(named: Sequence[tuple[str, Tensor]], what: str) -> None:
    """Require a finite gradient that is not zero in every parameter."""
    for name, values in named:
        require(values.grad is not None, f"the gradient must reach every parameter of {what}: '{name}' has none")
        assert values.grad is not None
        require(bool(values.grad.isfinite().all()), f"the gradient of '{name}' must be finite")
        require(bool(values.grad.any()), f"the gradient must reach every parameter of {what}: that of '{name}' is zero")
