"""The negative controls: which order each of them is trained with, and what else is changed.

N patches; every order is int64 [N], `order[slot] = patch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reorder_core import Control, RunError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reorder_controls.settings import (
        LayerShuffleSettings,
        OrderSettings,
        RandomEachBatchSettings,
        RandomFixedSettings,
        ReadoutSettings,
    )
    from reorder_core import Context


def initial(settings: None, context: Context) -> Control:
    """The policy's starting order, kept: what learning the order added, with all else the same."""
    return Control("initial", order_from=_prior)


def learned_static(settings: None, context: Context) -> Control:
    """The learned order from the first step: whether the order itself is better, or only the way to it."""
    return Control("learned_static", order_from=_learned, needs="finished")


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


def readout_class(settings: ReadoutSettings, context: Context) -> Control:
    """The summary read at a class token."""
    return _readout("class", settings)


def readout_mean(settings: ReadoutSettings, context: Context) -> Control:
    """The summary read as the mean of all patches: what an order is worth where no slot is read alone."""
    return _readout("mean", settings)


def readout_last(settings: ReadoutSettings, context: Context) -> Control:
    """The summary read at the last patch: how much of an order's worth is which patch comes last."""
    return _readout("last", settings)


def layer_shuffle(settings: LayerShuffleSettings, context: Context) -> Control:
    """Patches shuffled between the blocks while training: what disorder is worth without any learned order."""
    between = {"name": "layer_shuffle", "probability": settings.probability}
    return _in_order("layer_shuffle", {"backbone.between": between}, settings)


def _readout(place: str, settings: ReadoutSettings) -> Control:
    cleared: dict[str, Any] = {f"backbone.{key}": None for key in settings.without}
    return _in_order(f"readout_{place}", {**cleared, "backbone.readout": place}, settings)


def _in_order(name: str, overrides: dict[str, Any], settings: OrderSettings) -> Control:
    """A changed recipe in the order that the settings name."""
    if settings.order == "learned":
        return Control(name, order_from=_learned, overrides=overrides, needs="finished")
    return Control(name, order_from=_prior if settings.order == "initial" else None, overrides=overrides)


def _prior(context: Context, learned_N: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if context.prior_N is None:
        raise UsageError("a control in the initial order needs a policy, whose first order it keeps: take it out")
    return np.array(context.prior_N, dtype=np.int64)


def _learned(context: Context, learned_N: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return _known(learned_N).copy()


def _known(learned_N: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if learned_N is None:
        raise RunError("this control is made from the learned order, and the main run has not finished: run that first")
    return np.asarray(learned_N, dtype=np.int64)
