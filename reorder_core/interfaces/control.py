"""A control: the same run with another order, trained side by side, so that a gain means something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reorder_core.interfaces.context import Context


@dataclass(frozen=True, slots=True)
class Control:
    """name: its folder and its row in the table.

    order_from: `(context, learned_N) -> int64 [N]`: the fixed order it is trained with; learned_N is the main run's
    order where `needs` is "finished", else None. None: the recipe's own order (an override changes something else).
    overrides: changes to the recipe, as `-o` takes them; the policy is taken away unless an override names one.
    needs: "nothing", or "finished": it can only start when the main run has its order.
    """

    name: str
    order_from: Callable[[Context, NDArray[np.int64] | None], NDArray[np.int64]] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    needs: Literal["nothing", "finished"] = "nothing"
