"""The contracts: what every component must satisfy, in one call each, and Hypothesis strategies to write more.

    from reorder_core.conformance import check_ordering

    def test_zigzag():
        check_ordering("zigzag")                                 # an installed component, by its name
        check_ordering("spiral", {"inward": False})              # with settings, as a recipe has them
        check_ordering(MyOrdering, MySettings(step=2))           # a target, with its settings object or None

Every check takes (component, settings=None) first, has keyword options of its own, returns nothing, and raises
`ContractBroken` (an AssertionError) with what was expected. Our own rooms pass the same calls. It needs Hypothesis,
which comes with `pip install 'reorder[test]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reorder_core.conformance.backbone import check_backbone as check_backbone
    from reorder_core.conformance.between import check_between as check_between
    from reorder_core.conformance.building import ContractBroken as ContractBroken
    from reorder_core.conformance.building import context as context
    from reorder_core.conformance.control import check_control as check_control
    from reorder_core.conformance.dataset import check_dataset as check_dataset
    from reorder_core.conformance.mixer import check_mixer as check_mixer
    from reorder_core.conformance.ordering import check_ordering as check_ordering
    from reorder_core.conformance.policy import check_policy as check_policy
    from reorder_core.conformance.strategies import grids as grids
    from reorder_core.conformance.strategies import permutations as permutations
    from reorder_core.conformance.strategies import score_vectors as score_vectors
    from reorder_core.conformance.strategies import token_batches as token_batches
    from reorder_core.conformance.task import check_task as check_task

_HOME_OF = {
    "ContractBroken": "building",
    "check_backbone": "backbone",
    "check_between": "between",
    "check_control": "control",
    "check_dataset": "dataset",
    "check_mixer": "mixer",
    "check_ordering": "ordering",
    "check_policy": "policy",
    "check_task": "task",
    "context": "building",
    "grids": "strategies",
    "permutations": "strategies",
    "score_vectors": "strategies",
    "token_batches": "strategies",
}

__all__ = [*sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'reorder_core.conformance' has no attribute {name!r}")
    return getattr(import_module(f"reorder_core.conformance.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
