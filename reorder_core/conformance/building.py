"""How the checks build a component, and how they say that one broke its contract."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reorder_core.catalogue import Catalogue
from reorder_core.grid import Grid
from reorder_core.interfaces.context import Context
from reorder_core.settings import ComponentRef, DataFacts, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Buildable = str | Callable[[Any, Context], Any]
Given = Settings | Mapping[str, Any] | None


class ContractBroken(AssertionError):
    """A component does not do what its interface promises; the message says what was expected."""


def require(condition: object, expected: str) -> None:
    """Raise `ContractBroken` saying what was expected, unless it is so."""
    if not condition:
        raise ContractBroken(expected)


def context(
    grid: Grid | str = "4x4",
    *,
    patch: int = 4,
    channels: int = 1,
    width: int = 32,
    classes: int = 10,
    prior_N: NDArray[np.int64] | None = None,
    seed: int = 0,
    target: str = "class",
    dataset: Any = None,
) -> Context:
    """A context for a test: a seeded generator, a data set of `classes` classes, references to what is installed.

    target: what the data has beside its images. dataset: what a task finds as `context.dataset`, and its facts.
    """
    import torch

    place = Grid.parse(grid) if isinstance(grid, str) else grid
    size = (place.rows * patch, place.columns * patch)
    facts = DataFacts(*size, channels, target=target, classes=classes, train=64, validation=32)
    facts = getattr(dataset, "facts", facts)
    return Context(
        grid=place,
        patch=patch,
        channels=channels,
        width=width,
        data=facts,
        prior_N=prior_N,
        dataset=dataset,
        generator=torch.Generator().manual_seed(seed),
        builder=lambda ref, where: Catalogue.load().build(ref, where),
    ).changed()


def build(kind: str, component: Buildable, settings: Given, where: Context) -> Any:
    """An installed component by its name (settings as a recipe has them), or a target called with its settings."""
    if not isinstance(component, str):
        return component(settings, where)
    return Catalogue.load().build(ComponentRef(kind, component, written(settings)), where)


def written(settings: Given) -> Mapping[str, Any]:
    """Settings as a mapping, whatever they were given as."""
    if isinstance(settings, Settings):
        return {name: getattr(settings, name) for name in settings.model_fields_set}
    return settings or {}


@contextmanager
def leaves_global_random_state(what: str) -> Iterator[None]:
    """Require that the block draws from no global generator: Python's, NumPy's or torch's."""
    before = _random_states()
    yield
    after = _random_states()
    for name, state in before.items():
        require(
            state == after[name],
            f"{what} must leave the global random state of {name} alone: draw from the generator of the context",
        )


def _random_states() -> dict[str, object]:
    states: dict[str, object] = {"Python": random.getstate()}
    if "numpy" in sys.modules:
        import numpy as np

        kind, keys, *rest = np.random.get_state()
        states["NumPy"] = (kind, bytes(keys), *rest)  # type: ignore[arg-type]
    if "torch" in sys.modules:
        import torch

        states["torch"] = bytes(torch.get_rng_state().numpy())
    return states
