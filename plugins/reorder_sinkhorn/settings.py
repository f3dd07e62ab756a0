"""Settings of the policy `gumbel_sinkhorn`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from reorder_core import PolicySettings, Problem, RunFacts, order_problems
from reorder_core.schedule import ShapeName

_GIB = 2**30


class GumbelSinkhornSettings(PolicySettings):
    """Gumbel-Sinkhorn: hard orders forward, doubly stochastic matrices backward."""

    orders: int = Field(default=8, ge=1)
    """K, how many orders one batch is read in: image i of the whole batch reads order i % K; 1 is one shared order"""
    parametrisation: Literal["full", "low_rank"] = "full"
    """what is learned: a logit for each slot and patch (N×N), or a vector of `rank` numbers for each slot and patch"""
    rank: int = Field(default=16, ge=2, multiple_of=2)
    """of the logits where parametrisation: low_rank; also how sharp the first order can be (about 2N / rank slots)"""
    spread: float = Field(default=1.0, gt=0)
    """how far the first logits of the prior's order stand above the others, in nats beyond log N: of the first
    drawn orders' slots about 3 in 4 hold the prior's patch at 0.5, 9 in 10 at 1, 98 in 100 at 2 (full, noise 1)"""
    temperature: float = Field(default=1.0)
    """τ at the top of the schedule; logits and noise are divided by it"""
    final_temperature: float = Field(default=0.2)
    """τ at the bottom of the schedule"""
    schedule: ShapeName = "cosine"
    """how τ runs between the two while the policy learns, on a logarithmic scale"""
    iterations: int = Field(default=20, ge=1)
    """how often rows and columns are normalised at `temperature`"""
    final_iterations: int | None = Field(default=None, ge=1)
    """how often at `final_temperature`, where convergence is slower, and in between in step with τ; left out: as often
    as at the top"""
    noise: float = Field(default=1.0, ge=0)
    """scale of the Gumbel noise that is added to the logits; 0 draws the best order every time"""
    entropy_penalty: float = Field(default=0.0, ge=0)
    """weight of the mean entropy (nats a slot) of the noise-free matrix in the policy's loss: towards one order"""
    learning_rate: float | None = Field(default=0.05, gt=0)
    """of the policy's own parameters; null takes the optimiser's"""
    max_memory: float = Field(default=2.0, gt=0)
    """GiB that the policy's N×N matrices may take; a longer sequence is refused"""

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """Orders that do not fit the batch, and everything of `contradictions`."""
        yield from order_problems(self.orders, facts.batch_size)
        yield from self.contradictions(facts.grid.size)

    def contradictions(self, patches: int) -> Iterable[Problem]:
        """What is wrong for a grid of `patches` patches, whatever the batch (also checked when the policy is built)."""
        for key in ("temperature", "final_temperature"):
            if (value := getattr(self, key)) <= 0:
                yield Problem(key, f"a temperature divides the logits, so it must be above 0, not {value:g}")
        if 0 < self.temperature < self.final_temperature:
            yield Problem(
                "final_temperature",
                f"the temperature falls while the policy learns, so this must not be above {self.temperature:g}",
            )
        if self.orders > 1 and self.noise == 0:
            yield Problem("orders", f"without noise all {self.orders} orders are the same: set noise, or use orders: 1")
        if self.parametrisation == "full" and self.rank != type(self).model_fields["rank"].default:
            yield Problem("rank", "only parametrisation: low_rank has a rank: leave it out")
        if self.final_iterations is not None and self.temperature == self.final_temperature:
            yield Problem(
                "final_iterations",
                "iterations follow the temperature, which stays the same: change final_temperature, or leave this out",
            )
        if (memory := self.memory(patches)) > self.max_memory * _GIB:
            yield Problem(
                "orders",
                f"{patches} patches need about {memory / _GIB:.1f} GiB of N×N matrices, more than max_memory "
                f"{self.max_memory:g}: use the policy softsort, shuffle_softsort or reinforce, fewer orders, or a "
                f"larger patch",
            )

    def memory(self, patches: int) -> int:
        """Bytes of the N×N matrices that are alive at once in a training step, float32.

        For each order its kernel, matrix (twice while they are put together) and gradient; once the scores, their
        noise and what is being made of them; and for full logits these, their gradient and the two averages of Adam.
        """
        matrices = 4 * self.orders + 4 + (4 if self.parametrisation == "full" else 0)
        return 4 * patches**2 * matrices
