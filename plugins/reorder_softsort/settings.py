"""Settings of the policies `softsort` and `shuffle_softsort`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from reorder_core import PolicySettings, Problem, RunFacts, order_problems
from reorder_core.schedule import ShapeName

#: Above this, comparing every slot with every patch takes longer than the models that read the sequence.
LONGEST_DENSE = 4096


class SoftOrderSettings(PolicySettings):
    """What both policies share. A *slot* is the unit of scores: at the start neighbours are 1 slot apart."""

    orders: int = Field(default=1, ge=1)
    """K, how many orders one batch is read in: image i reads order i % K; more than 1 needs noise"""
    temperature: float = Field(default=1.0, gt=0)
    """tau where the schedule is highest, in slots: far above 1 a row blurs over many patches, below 1 little moves"""
    temperature_end: float = Field(default=0.1, gt=0)
    """tau where the schedule is lowest, in slots"""
    schedule: ShapeName = "linear"
    """how the temperature runs while the policy learns: linear falls from the highest to the lowest"""
    noise: float = Field(default=0.0, ge=0)
    """scale of the Gumbel noise added to the scores, in slots, at the highest temperature; it falls with it"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """Orders that do not fit the batch, and what is wrong for this grid."""
        yield from order_problems(self.orders, facts.batch_size)
        yield from self.contradictions(facts.grid.size)

    def contradictions(self, patches: int) -> Iterable[Problem]:
        """What is wrong for a grid of `patches` patches, whatever the batch (also checked when the policy is built)."""
        if self.orders > 1 and self.noise == 0:
            yield Problem("orders", f"without noise all {self.orders} orders are the same: set noise, or use orders: 1")
        if self.temperature_end > self.temperature:
            yield Problem("temperature_end", f"it must be at most temperature, which is {self.temperature:g}: lower it")


class SoftSortSettings(SoftOrderSettings):
    """N scores, sorted softly; the gradient of the soft order moves them."""

    relaxation: Literal["softsort", "neuralsort", "lapsum"] = "softsort"
    """softsort: rows sum to one, time and memory grow little faster than N; lapsum: rows and columns sum to one, the
    same growth, about three times the work; neuralsort: rows of another shape, time grows as N squared"""
    temperature: float = Field(default=16.0, gt=0)
    """tau where the schedule is highest, in slots: about as far as a patch sees along the sequence; N/8 is a start"""
    learning_rate: float | None = Field(default=0.3, gt=0)
    """of the scores, in slots a step; null takes the optimiser's"""

    def contradictions(self, patches: int) -> Iterable[Problem]:
        yield from super().contradictions(patches)
        if self.relaxation == "neuralsort" and patches > LONGEST_DENSE:
            gib = 4 * patches**2 / 2**30
            yield Problem(
                "relaxation",
                f"neuralsort compares each of {patches} slots with each patch, a matrix of {gib:.1f} GiB for every "
                f"order and pass, and is for at most {LONGEST_DENSE}: use relaxation: softsort",
            )


class ShuffleSoftSortSettings(SoftOrderSettings):
    """Rounds of a few soft sorts, each along another shuffled line of the slots."""

    learning_rate: float = Field(default=0.3, gt=0)
    """of the scores, in slots a step, of the Adam that every round starts anew"""
    steps: int = Field(default=4, ge=1)
    """how many learning steps a round takes before its order is kept and the next line is drawn"""
    shuffle: float = Field(default=1.0, ge=0, le=1)
    """how far the first lines are shuffled: a slot moves by up to this share of the sequence; 1 is any line at all"""
    shuffle_end: float = Field(default=1.0, ge=0, le=1)
    """how far the last lines are shuffled; in between it changes in a straight line"""
