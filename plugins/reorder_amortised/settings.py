"""Settings of the policy `amortised`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from reorder_core import PolicySettings, Problem, RunFacts
from reorder_core.schedule import ShapeName


class AmortisedSettings(PolicySettings):
    """A scorer that looks at the patches of an image, and how it learns."""

    reads_images: ClassVar[bool] = True

    estimator: Literal["reinforce", "softsort"] = "reinforce"
    """reinforce: orders are drawn and rewarded; softsort: one order an image, learned through its soft gradient"""
    scorer: Literal["tokens", "context"] = "context"
    """what a patch's score depends on: its own token and place, or also the mean of the image's tokens"""
    hidden: int = Field(default=32, ge=1)
    """width of the scorer's hidden layer"""
    temperature: float = Field(default=0.15, gt=0)
    """the highest temperature of the schedule, in units of the scores, whose first spread is `spread`"""
    schedule: ShapeName = "triangular"
    """how the temperature runs while the policy learns; triangular goes from 0 to the peak and back to 0"""
    spread: float = Field(default=1.0, gt=0)
    """the first scores run from 0 down to -spread along the prior; only temperature / spread matters at the start"""
    orders_per_image: int = Field(default=2, ge=1)
    """reinforce: M, in how many drawn orders each image is read; all but the first cost one forward pass each"""
    baseline: Literal["leave_one_out", "greedy", "batch"] = "leave_one_out"
    """reinforce: what is subtracted from the reward of an image in an order: the mean of its rewards in its other
    orders, its reward in its own best order (one more forward pass), or the mean reward of the other images"""
    antithetic: bool = False
    """reinforce: draw an image's orders in pairs of opposite noise; leave_one_out then leaves the pair out"""
    learning_rate: float | None = Field(default=3e-3, gt=0)
    """of the scorer; null takes the optimiser's"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """A batch without another image, and settings that contradict each other."""
        yield from super().problems(facts)
        if self.estimator == "reinforce" and self.baseline == "batch" and facts.batch_size < 2:
            yield Problem("baseline", "batch needs at least 2 images in a batch: raise the batch size")
        yield from self.contradictions()

    def contradictions(self) -> Iterable[Problem]:
        """What is wrong whatever the run (also checked when the policy is built)."""
        if self.estimator == "softsort":
            for key in ("orders_per_image", "baseline", "antithetic"):
                if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
                    yield Problem(key, "softsort reads each image in one order and needs no baseline: leave it out")
            return
        pairs = 2 if self.antithetic else 1
        if self.orders_per_image % pairs:
            yield Problem("antithetic", f"pairs need an even number of orders_per_image, not {self.orders_per_image}")
        if self.baseline == "leave_one_out" and self.orders_per_image < 2 * pairs:
            also = ", the pair left out," if self.antithetic else ""
            yield Problem(
                "baseline",
                f"leave_one_out{also} needs at least {2 * pairs} orders_per_image: raise it, or use baseline: greedy",
            )
