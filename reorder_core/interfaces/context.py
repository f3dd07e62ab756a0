"""What only the whole run knows, handed to every component when it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reorder_core.grid import Grid
from reorder_core.settings import ComponentRef, DataFacts

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


def _nothing_to_resolve(ref: ComponentRef) -> Any:
    raise LookupError(f"this context cannot build the {ref.kind} '{ref.name}'")


@dataclass(frozen=True, slots=True)
class Context:
    """Built by the run (or by `reorder_core.conformance.context` in an author's tests) and read by components.

    grid: the patches of one image. patch: side of a patch in pixels. channels: of the images.
    width: D, the width of a token. data: classes or vocabulary, sizes, target type.
    prior_N: the order a policy starts from, int64 [N], `prior[slot] = patch`; None where there is no policy.
    dataset: the data set, for a task that reads the targets of its training split or names of classes; else None.
    generator: the run's own torch generator (CPU): the only source of randomness.
    resolve: builds the component that a setting (`Ref["ordering"]`) names, in this context.
    builder: builds a component in the context it is given; what `changed` and `build` rest on.
    """

    grid: Grid
    patch: int = 1
    channels: int = 1
    width: int = 0
    data: DataFacts | None = None
    prior_N: NDArray[np.int64] | None = None
    dataset: Any = None
    generator: torch.Generator | None = None
    resolve: Callable[[ComponentRef], Any] = _nothing_to_resolve
    builder: Callable[[ComponentRef, Context], Any] | None = None

    @classmethod
    def of_data(
        cls, data: DataFacts, patch: int, seed: int, builder: Callable[[ComponentRef, Context], Any]
    ) -> Context:
        """What a data set and a patch decide: a grid, and a fresh generator; what trains nothing needs no more.

        Raises `ReorderError` for a patch that does not divide the images.
        """
        import torch

        return cls(
            grid=Grid.of_image(data.height, data.width, patch),
            patch=patch,
            channels=data.channels,
            data=data,
            generator=torch.Generator().manual_seed(seed),
            builder=builder,
        ).changed()

    def changed(self, **changes: Any) -> Context:
        """The same context with other values, for the components that are resolved through it as well."""
        builder = self.builder
        if builder is None:
            return replace(self, **changes)

        def resolve(ref: ComponentRef) -> Any:
            return builder(ref, made)

        made = replace(self, resolve=resolve, **changes)
        return made

    def build(self, ref: ComponentRef, **changes: Any) -> Any:
        """The component that `ref` names, built in a changed context: `context.build(settings.mixer, width=96)`."""
        return self.changed(**changes).resolve(ref)
