"""A mixer moves information along the sequence: attention, a state space, …, without norm, residual and MLP.

B images, D width, L = N + S tokens of a sequence: patches and special tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from reorder_core.interfaces.backbone import Attention

if TYPE_CHECKING:
    from torch import Tensor

    from reorder_core.layout import Layout


@runtime_checkable
class Mixer(Protocol):
    """A `torch.nn.Module` of width `context.width`: what the blocks of a backbone share, and a hierarchy can hold.

    attention: what a token may look at. order_sensitive: whether the mean of its outputs depends on the order.
    orders: how many layouts it wants at once (1, or more for a cross-scan).
    """

    attention: Attention
    order_sensitive: bool
    orders: int

    def plan(self, layout: Layout | tuple[Layout, ...]) -> Any:
        """What all blocks of a stack share for this layout (masks, indices): made once a forward pass.

        Tensor operations only, so that torch.compile and torch.export can follow.
        """
        ...

    def forward(self, tokens_BLD: Tensor, plan: Any) -> Tensor:
        """[B, L, D] to [B, L, D], tokens in the order of the layout (of its first, where it is a tuple)."""
        ...
