"""What the policies of this room start from: the prior, and the named curves that a recipe holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reorder_core import ComponentRef, Context, Ordering, Problem, UsageError


class _Contradicted(Protocol):
    def contradictions(self) -> Iterable[Problem]: ...


def refuse_contradictions(settings: _Contradicted) -> None:
    """Raises `UsageError` for the first setting that contradicts another."""
    for problem in settings.contradictions():
        raise UsageError(f"policy.{problem.key}: {problem.message}")


def prior_order(name: str, context: Context) -> NDArray[np.int64]:
    """The order that the policy called `name` starts from, int64 [N], its own copy."""
    if context.prior_N is None:
        raise UsageError(f"the policy {name} needs an order to start from: name an ordering, or policy.prior")
    return np.array(context.prior_N, dtype=np.int64)


def known_curves(curves: Iterable[ComponentRef], context: Context) -> Iterator[tuple[str, Ordering]]:
    """Each curve with a name of its own. Raises `UsageError` for one that has to learn from images first."""
    taken: set[str] = set()
    for ref in curves:
        curve = context.resolve(ref)
        if hasattr(curve, "fit"):
            raise UsageError(
                f"policy.curves: '{ref.name}' learns from images, which a nested ordering is never shown: "
                f"name it as policy.prior, or save its order and name {{name: file, path: …}}"
            )
        number, name = 1, ref.name
        while name in taken:
            number += 1
            name = f"{ref.name}-{number}"
        taken.add(name)
        yield name, curve
