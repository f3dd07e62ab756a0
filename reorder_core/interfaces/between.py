"""What stands between the blocks of a backbone: it puts the patches into another order as the model goes.

B images, N patches or slots, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from reorder_core.layout import Layout


@runtime_checkable
class Between(Protocol):
    """A `torch.nn.Module` of width `context.width`, called after each block with the patches alone.

    A recipe names it in the backbone's settings, `between: {name: layer_shuffle}`. Special tokens keep their places,
    and it never sees them. Random numbers come from torch's global generator, as those of dropout do, and in training
    mode only: in evaluation the same input gives the same order.

    What it learns with. A between has no loss of its own, for it knows no targets: what it learns comes back through
    the tokens it hands on (straight-through, say), or through an *exit*. Optional members for an exit:

    `exits_after: tuple[int, ...]`: the numbers of the blocks after which the summary is read early, and
    `exit_weights(k, tokens_BND, layout) -> weight_BN`: how much each patch counts in it, not negative and of sum 1.

    The backbone then hands on Σ weight · final_norm(token) as one of `Features.exits`, [B, D], and a task that reads
    its head on them too (`classification` does, with its setting `auxiliary`) teaches the weights which patches tell
    the target. So no loss crosses the seam, an exit costs no head of its own, and whoever answers early answers with
    the task's own head.
    """

    def prepare(self, depth: int) -> None:
        """Told once, when the backbone is built, how many blocks it has; raises `UsageError` where they do not do."""
        ...

    def forward(self, k: int, tokens_BND: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """The patches that come out of block k (0 … depth-1) in the order for the next, and the layout they then have.

        The same tokens in another order, or as they are: `layout.restore` of both is the same. As many as before.
        """
        ...
