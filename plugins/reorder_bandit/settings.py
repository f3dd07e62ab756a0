"""Settings of the policies that need no gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reorder_core import ComponentRef, PolicySettings, Problem, Ref, RunFacts, order_problems
from reorder_core.schedule import ShapeName

if TYPE_CHECKING:
    OrderingRef = ComponentRef
else:
    OrderingRef = Ref["ordering"]

Variant = Literal["flip_rows", "flip_columns", "transpose", "reverse"]
CURVES = tuple(ComponentRef("ordering", name) for name in ("row_major", "snake", "hilbert", "spiral", "diagonal"))


class _ComparedOrders(PolicySettings):
    """What all policies of this room share: a batch is read in several orders, which are compared."""

    orders: int = Field(default=8, ge=2)
    """K, how many orders one batch is read in: image i of the whole batch reads order i % K"""
    orders_per_image: int = Field(default=1, ge=1)
    """in how many of the K orders each image is read; with more than one, orders are compared on the same images, and
    each further one costs a forward pass"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """Groups that do not fit the batch, and settings that contradict each other."""
        yield from order_problems(self.orders, facts.batch_size)
        yield from self.contradictions()

    def contradictions(self) -> Iterable[Problem]:
        """What is wrong in any run (also checked when the policy is built)."""
        if self.orders_per_image > self.orders:
            yield Problem(
                "orders_per_image",
                f"an image cannot be read in {self.orders_per_image} of {self.orders} orders: lower it",
            )


class CurveBanditSettings(_ComparedOrders):
    """A bandit whose arms are orders: the prior, and named curves with their mirror images."""

    curves: tuple[OrderingRef, ...] = CURVES
    """the orderings to choose from; the prior is always one more"""
    variants: tuple[Variant, ...] = ("flip_rows", "flip_columns", "transpose", "reverse")
    """what is also tried of each curve, in every combination: top and bottom exchanged, left and right exchanged, rows
    and columns exchanged (where the curve can be drawn on the turned grid), read backwards; equal orders are one arm"""
    rule: Literal["ucb", "gradient"] = "ucb"
    """how arms are chosen: by the upper end of their confidence interval, or by a softmax over learned preferences"""
    exploration: float = Field(default=1.0, ge=0)
    """at the start of the phase: of ucb, the width of the intervals in standard errors; of gradient, the temperature of
    the softmax"""
    schedule: ShapeName = "linear"
    """how exploration runs while the policy learns; linear and cosine end at 0, with the best arm alone"""
    discount: float = Field(default=0.99, gt=0, le=1)
    """how much of what was observed still counts one step later; below 1 since a model that learns changes its mind"""
    step_size: float = Field(default=0.3, gt=0)
    """of the preferences; not read where rule: ucb"""

    def contradictions(self) -> Iterable[Problem]:
        yield from super().contradictions()
        if not self.curves:
            yield Problem("curves", "the prior alone leaves nothing to choose: name at least one curve")
        if self.rule == "ucb" and self.step_size != type(self).model_fields["step_size"].default:
            yield Problem("step_size", "only rule: gradient has preferences: leave it out")
        if len(set(self.variants)) < len(self.variants):
            yield Problem("variants", "a variant is named twice: keep one")


class RandomSearchSettings(_ComparedOrders):
    """Uniform random orders against the best so far."""

    confidence: float = Field(default=2.5, ge=0)
    """by how many standard errors a challenger must lead before it takes the place of the best order"""
    drop: float = Field(default=0.0, ge=0)
    """by how many standard errors a challenger must lie behind before another order is drawn in its place"""
    discount: float = Field(default=0.99, gt=0, le=1)
    """how much of what was observed still counts one step later"""


class EvolutionSettings(_ComparedOrders):
    """Evolution strategies on a logit for each patch."""

    strategy: Literal["antithetic", "comma"] = "antithetic"
    """antithetic: orders in pairs of opposite noise, all of them weighted by rank (natural evolution strategy); comma:
    (μ/μ, λ), independent noise, the mean of the better half"""
    sigma: float = Field(default=0.4, gt=0)
    """standard deviation of the noise on the logits at the start of the phase; only sigma / spread matters there"""
    schedule: ShapeName = "linear"
    """how sigma runs while the policy learns; linear and cosine end at 0, with the best order alone"""
    step_size: float = Field(default=0.3, gt=0)
    """how far the logits go in the estimated direction, in units of sigma; 1 is the textbook's, for rewards without
    noise"""
    spread: float = Field(default=1.0, gt=0)
    """the first logits run from 0 down to -spread along the prior"""

    def contradictions(self) -> Iterable[Problem]:
        yield from super().contradictions()
        if self.strategy == "antithetic" and self.orders % 2:
            yield Problem("orders", f"pairs of opposite noise need an even number of orders, not {self.orders}")
