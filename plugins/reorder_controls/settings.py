"""Settings of this room's controls and of its policy `uniform`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from reorder_core import PolicySettings, Problem, RunFacts, Settings, order_problems


class RandomFixedSettings(Settings):
    """One random order for the whole run."""

    seed: int = Field(default=1, ge=0)
    """which random order: the seed it is drawn from"""


class RandomEachBatchSettings(Settings):
    """A new random order for every batch."""

    orders: int = Field(default=1, ge=1)
    """how many different orders one batch is split into"""
    epochs: int | None = Field(default=None, ge=1)
    """draw in this many epochs from the first one on; left out: in the recipe's own learning phase"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from order_problems(self.orders, facts.batch_size)
        whole = getattr(facts.training, "epochs", None)
        if self.epochs is not None and whole is not None and self.epochs > whole:
            yield Problem("epochs", f"the run has {whole} epochs, not {self.epochs}: give at most that many")


class OrderSettings(Settings):
    """In which order a control is trained that changes something else."""

    order: Literal["ordering", "initial", "learned"] = "ordering"
    """the recipe's `ordering`; the order that its policy starts from (which policy.prior may change); or the order that
    the main run learned, which it then waits for"""


class ReadoutSettings(OrderSettings):
    """Another place where the summary is read."""

    without: tuple[str, ...] = ()
    """settings of the backbone that only its own readout has, set back to null: [class_position], say"""


class LayerShuffleSettings(OrderSettings):
    """Patches shuffled between the blocks of the backbone while training."""

    probability: float = Field(default=0.5, gt=0, le=1)
    """how often the last block reads its patches shuffled; block l of L does with probability · l / L"""


class UniformSettings(PolicySettings):
    """A policy that draws uniformly and never learns."""

    orders: int = Field(default=1, ge=1)
    """how many different orders one batch is split into"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return order_problems(self.orders, facts.batch_size)
