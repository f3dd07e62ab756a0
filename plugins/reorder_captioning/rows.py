"""Rows of a backbone's state: what a beam takes from one step to the next, whatever the state is made of.

R rows.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from reorder_core import UsageError


def taken(state: Any, fresh: Any, wanted: Any, row_R: Tensor) -> Any:
    """The state whose row r is row `row_R[r]` of `state`: of its tensors, whose first dimension is the batch, in lists,
    tuples, dicts and dataclasses.

    fresh: the state that `state` came from, before the first token; wanted: the same for R rows. What is still an
    object of `fresh` depends on no token and is that of `wanted`: a plan that all steps share, say, has no rows.
    Raises `UsageError` for an object that it cannot look into.
    """
    if state is fresh:
        return wanted
    if isinstance(state, Tensor):
        return state.index_select(0, row_R)
    if is_dataclass(state) and not isinstance(state, type):
        names = [field.name for field in fields(state)]
        return replace(
            state,
            **{
                name: taken(getattr(state, name), getattr(fresh, name, None), getattr(wanted, name, None), row_R)
                for name in names
            },
        )
    if isinstance(state, dict):
        return {
            key: taken(value, (fresh or {}).get(key), (wanted or {}).get(key), row_R) for key, value in state.items()
        }
    if isinstance(state, list | tuple):
        parts = [taken(value, _at(fresh, k), _at(wanted, k), row_R) for k, value in enumerate(state)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise UsageError(
        f"a beam cannot take rows of this backbone's state, which holds a {type(state).__name__}: set task.beam to 1"
    )


def _at(state: Any, place: int) -> Any:
    return state[place] if isinstance(state, list | tuple) and place < len(state) else None
