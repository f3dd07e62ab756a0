"""The negative controls: which order each of them is trained with.

N patches; every order is int64 [N], `order[slot] = patch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reorder_core import Control, RunError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reorder_controls.settings import RandomEachBatchSettings, RandomFixedSettings
    from reorder_core import Context


def initial(settings: None, context: Context) -> Control:
    """The policy's starting order, kept: what learning the order added, with all else the same."""
    return Control("initial", order_from=_prior)


def learned_static(settings: None, context: Context) -> Control:
    """The learned order from the first step: whether the order itself is better, or only the way to it."""
    return Control("learned_static", order_from=lambda context, learned_N: _known(learned_N).copy(), needs="finished")


def inverse(settings: None, context: Context) -> Control:
    """Slots and patches confused: what a wrong convention would have given; as irregular as the learned order."""
    return Control("inverse", order_from=lambda context, learned_N: np.argsort(_known(learned_N)), needs="finished")


def reverse(settings: None, context: Context) -> Control:
    """The same neighbours in the sequence, the other end last: how much is only about what is read last."""
    return Control("reverse", order_from=lambda context, learned_N: _known(learned_N)[::-1].copy(), needs="finished")


def random_fixed(settings: RandomFixedSettings, context: Context) -> Control:
    """One random order: what order is worth at all to this model."""

    def order_from(context: Context, learned_N: NDArray[np.int64] | None) -> NDArray[np.int64]:
        return np.random.default_rng(settings.seed).permutation(context.grid.size).astype(np.int64)

    return Control("random_fixed", order_from=order_from)


def random_each_batch(settings: RandomEachBatchSettings, context: Context) -> Control:
    """A new random order a batch, in place of the policy: what the spread of orders does without any learning."""
    overrides: dict[str, Any] = {"policy": {"name": "uniform", "orders": settings.orders}}
    if settings.epochs is not None:
        phases = {"unit": "epochs", "warm_up": 0, "learn": settings.epochs}
        overrides |= {f"training.phases.{key}": value for key, value in phases.items()}
    return Control("random_each_batch", overrides=overrides)


def _prior(context: Context, learned_N: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if context.prior_N is None:
        raise UsageError("the control 'initial' needs a policy, whose first order it keeps: take it out of 'controls'")
    return np.array(context.prior_N, dtype=np.int64)


def _known(learned_N: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if learned_N is None:
        raise RunError("this control is made from the learned order, and the main run has not finished: run that first")
    return np.asarray(learned_N, dtype=np.int64)
