"""A policy holds a distribution over permutations, and learns it.

B images of the whole (global) batch, G orders, M orders an image, N patches, D width.

Several processes: every process holds the same policy with the same generator state, draws for the *global* batch,
and reads its own images with `Draw.part`. `observe` gets the losses of all images, in the same order on every process,
so that the update is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from reorder_core.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor

    from reorder_core.layout import Layout


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a run stands: `step` steps are done; the policy learns in [learn_start, learn_stop) and is frozen after.

    All in optimiser steps. Pure: the same step gives the same temperature, also after a resume.
    """

    step: int
    steps_per_epoch: int
    learn_start: int
    learn_stop: int
    total: int

    @property
    def learning(self) -> bool:
        return self.learn_start <= self.step < self.learn_stop

    @property
    def progress(self) -> float:
        """0 at the first learning step, 1 when the policy is frozen."""
        return min(1.0, max(0.0, (self.step - self.learn_start) / max(1, self.learn_stop - self.learn_start)))


@dataclass(frozen=True, slots=True)
class Draw:
    """What a policy hands out for one batch.

    perm_GN: int64, `perm_GN[g, slot] = patch`. group_B: the order that each image is read (and trained) in.
    extra_MB: further orders in which the same images are read for their loss only, int64 [M-1, B], or None.
    log_prob_G: of the drawn orders, with gradient, where there is one.
    soft: `soft(tokens_BND) -> tokens_BND` in slot order where the order is soft (straight-through); else None. Where it
    is not the same for all images it is an object that also has `part(images)`, the same for a part of the batch.
    aux: the policy's own business.
    """

    perm_GN: Tensor
    group_B: Tensor
    extra_MB: Tensor | None = None
    log_prob_G: Tensor | None = None
    soft: Callable[[Tensor], Tensor] | None = None
    aux: Any = None

    def part(self, images: slice) -> Draw:
        """The same draw for a part of its images (those of one process)."""
        extra = None if self.extra_MB is None else self.extra_MB[:, images]
        soft: Any = self.soft
        if hasattr(soft, "part"):
            soft = soft.part(images)
        return replace(self, group_B=self.group_B[images], extra_MB=extra, soft=soft)

    def layout(self, grid: Grid, extra: int | None = None) -> Layout:
        """The layout of the trained orders, or of row `extra` of `extra_MB`."""
        from reorder_core.layout import Layout

        if extra is None:
            return Layout(grid, self.perm_GN, self.group_B)
        if self.extra_MB is None:
            raise IndexError("this draw has no further orders of the same images")
        return Layout(grid, self.perm_GN, self.extra_MB[extra])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a draw: loss_MB [M, B], detached, over the global batch, row 0 the trained order.

    index_B: which training images (int64 [B], their numbers in the data set), for per-image baselines.
    clock: when. local: the images of this process within B.
    """

    loss_MB: Tensor
    index_B: Tensor
    clock: Clock
    local: slice = field(default_factory=lambda: slice(None))


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """loss: only what the task's loss does not already carry, or None.

    metrics: numbers for the log, or a function that computes them: it is called before the update, and only in steps
    that are logged, so that numbers for the reader cost no training time.
    """

    loss: Tensor | None = None
    metrics: Mapping[str, float] | Callable[[], Mapping[str, float]] = field(default_factory=dict)

    def numbers(self) -> Mapping[str, float]:
        """The metrics, computed where that is still to be done."""
        return self.metrics() if callable(self.metrics) else self.metrics


@runtime_checkable
class Policy(Protocol):
    """A `torch.nn.Module`: its parameters are trained by the run, its buffers are saved with the checkpoint.

    orders_per_image: M. learning_rate: of its own parameters, or None for the optimiser's. A policy whose parts learn
    at different rates also has `parameter_groups() -> list of {"params": …, "lr": …}`, as torch optimisers take them.
    A policy that looks at the images has `reads_tokens = True`: `draw` and, outside of learning steps, `best` then get
    the embedded patches, detached, and `best` answers with an order for each image. All others get None. Its settings
    class says so too, `reads_images: ClassVar[bool] = True`, so that `check` can refuse a backbone that needs one order
    a batch. An exported model, `order.json` and the commands that open a run know one order: `best(None)`.
    State that is not in the module (a bandit's counts in Python, say) goes through `get_extra_state` /
    `set_extra_state` with JSON-able content. The generator it draws from is the context's; the run saves its state.
    """

    orders_per_image: int
    learning_rate: float | None

    def temperature(self, clock: Clock) -> float:
        """The temperature at this step, a pure function of the clock."""
        ...

    def draw(self, batch: int, tokens_BND: Tensor | None, temperature: float) -> Draw:
        """Orders for the `batch` images of the global batch. tokens_BND: see `reads_tokens`, in patch order."""
        ...

    def best(self, tokens_BND: Tensor | None = None) -> Tensor:
        """The best order so far, int64 [N]; before the first update it *is* the prior order.

        A policy that `reads_tokens` gives an order for each image where it is given tokens, int64 [B, N], and the one
        order of its mean scores where it is not; before the first update all of them are the prior order.
        """
        ...

    def observe(self, draw: Draw, outcome: Outcome) -> PolicyStep:
        """Learn from the losses of a batch: a loss to differentiate, or an update made in place (loss None)."""
        ...
