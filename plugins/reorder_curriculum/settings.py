"""Settings of the policy `curriculum`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from reorder_core import ComponentRef, PolicySettings, Problem, Ref, RunFacts

if TYPE_CHECKING:
    OrderingRef = ComponentRef
    PolicyRef = ComponentRef
    Start = ComponentRef | str
    End = ComponentRef | str
else:
    OrderingRef = Ref["ordering"]
    PolicyRef = Ref["policy"]
    # The words first: as a word, an ordering of that name is written {name: …}.
    Start = Annotated[Literal["random_each_batch", "learned"] | OrderingRef, Field(union_mode="left_to_right")]
    End = Annotated[Literal["prior", "learned", "learned_reversed"] | OrderingRef, Field(union_mode="left_to_right")]

Share = Annotated[float, Field(ge=0, lt=1)]


class CurriculumSettings(PolicySettings):
    """From one order to another while the recipe's learn phase runs."""

    start: Start | None = None
    """where the phase starts: an ordering; `random_each_batch`, random orders drawn anew for every batch; `learned`,
    the best order of the learner; left out: learned with a learner, else random_each_batch"""
    end: End = "prior"
    """where it ends, and what the frozen phase reads: an ordering; `prior`, the policy's first order; `learned`, the
    best order of the learner; `learned_reversed`, the same read backwards"""
    learner: PolicyRef | None = None
    """a policy that learns in the first share of the phase"""
    learner_share: float = Field(default=0.5, gt=0, lt=1)
    """the learner's share of the phase; not read without a learner"""
    hold: Share = 0.0
    """for which share of the move (the phase, without the learner's share) the start is kept before it begins"""
    schedule: Literal["linear", "cosine"] = "linear"
    """how the way is gone over time: evenly, or slowly at both ends"""
    every: int = Field(default=1, ge=1)
    """how long the order stays between two moves, in `unit`"""
    unit: Literal["steps", "epochs"] = "steps"
    """what `every` is counted in"""
    path: Literal["blend", "front", "back"] = "blend"
    """between two orders: `blend` sorts patches by the weighted mean of their slots in both; `front` settles the first
    slots first, `back` the last ones. Not read where the start is random_each_batch, whose random orders get rarer"""
    slots: int = Field(default=1, ge=1)
    """with path front or back: how many slots are settled at once"""
    orders: int | None = Field(default=None, ge=1)
    """with random_each_batch: how many draws a batch is split into; left out: every image has its own, as in RAR"""

    @property
    def starts_from(self) -> ComponentRef | str:
        """`start`, or what it stands for where it was left out."""
        if self.start is not None:
            return self.start
        return "random_each_batch" if self.learner is None else "learned"

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """More draws than images, a move longer than the phase, ways that lead nowhere."""
        if self.orders is not None and self.orders > facts.batch_size:
            yield Problem(
                "orders",
                f"{self.orders} draws do not fit a batch of {facts.batch_size} images: give at most that many, or none",
            )
        yield from self._too_long(facts)
        yield from self.contradictions(facts.grid.size)

    def contradictions(self, patches: int) -> Iterable[Problem]:
        """What is wrong on a grid of `patches` patches, whatever the run (also checked when the policy is built)."""
        learned = [key for key in ("start", "end") if str(getattr(self, key)).startswith("learned")]
        if self.learner is None and learned:
            yield Problem(learned[0], f"'{getattr(self, learned[0])}' needs a policy that learns: name it as learner")
        if self.learner is not None and self.starts_from != "learned" and "end" not in learned:
            yield Problem("learner", "what it learns would be thrown away: let start or end be learned, or remove it")
        if self.starts_from == "learned" and self.end == "learned":
            yield Problem("end", "the start is the learned order already: name another end")
        if self.learner is not None and self.learner.settings.get("prior") is not None:
            yield Problem("learner.prior", "a nested learner starts where the curriculum does: name it as policy.prior")
        if self.learner is not None and self.learner.name == "curriculum":
            yield Problem("learner", "a curriculum learns nothing itself: name the policy that it would hold")
        yield from self._without_effect()
        if self.slots > 1 and self.path == "blend":
            yield Problem("slots", "a blend moves all slots at once: choose path: front or back, or leave it out")
        if self.slots > patches:
            yield Problem("slots", f"a sequence has {patches} slots, not {self.slots}: lower it")

    def _without_effect(self) -> Iterable[Problem]:
        """Settings that would be accepted and do nothing."""
        is_random = self.starts_from == "random_each_batch"
        if self.orders is not None and not is_random:
            yield Problem(
                "orders", "only random orders are split into draws: leave it out, or start: random_each_batch"
            )
        if is_random and self.path != "blend":
            yield Problem("path", "random orders have no way to the end, they get rarer: leave it out")
        if isinstance(self.starts_from, ComponentRef) and self.starts_from == self.end:
            yield Problem("end", "start and end are the same order, so nothing would move: name another end")
        if self.learner is not None and self.learner.name == "uniform":
            yield Problem("learner", "uniform learns nothing: name a policy that does, or start: random_each_batch")

    def _too_long(self, facts: RunFacts) -> Iterable[Problem]:
        phases = getattr(facts.training, "phases", None)
        if phases is None or phases.learn <= 0:
            return
        learner = 0.0 if self.learner is None else self.learner_share
        move = phases.learn * (1 - learner) * (1 - self.hold)
        if phases.unit != self.unit:
            per_epoch = getattr(facts.training, "steps_per_epoch", None) or (facts.data.train or 0) // facts.batch_size
            if not per_epoch:
                return
            move = move / per_epoch if self.unit == "epochs" else move * per_epoch
        if self.every > move:
            yield Problem(
                "every", f"the move has {move:g} {self.unit}, so that nothing would move: give less than that"
            )
