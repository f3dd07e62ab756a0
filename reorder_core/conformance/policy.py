"""The contract of a policy. B images, G orders, M orders an image, N patches, D width."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reorder_core.conformance.building import (
    Buildable,
    Given,
    build,
    context,
    leaves_global_random_state,
    require,
)
from reorder_core.conformance.gradients import weighted
from reorder_core.conformance.strategies import for_all, permutations
from reorder_core.grid import Grid
from reorder_core.interfaces.policy import Clock, Draw, Outcome, PolicyStep

WIDTH = 8
LEARNING = Clock(step=50, steps_per_epoch=10, learn_start=10, learn_stop=90, total=120)


class _Policy:
    """A policy with its generator, tokens and losses to go through its steps with."""

    def __init__(
        self, component: Buildable, settings: Given, grid: Grid, batch: int, prior_N: Any, seed: int = 0
    ) -> None:
        self.grid, self.batch = grid, batch
        self.context = context(grid, width=WIDTH, prior_N=np.array(prior_N, dtype=np.int64), seed=seed)
        self.module: Any = build("policy", component, settings, self.context)
        require(isinstance(self.module, nn.Module), "a policy must be a torch.nn.Module")
        self.temperature = self.module.temperature(LEARNING)
        fixed = torch.Generator().manual_seed(11)
        self.tokens_BND = torch.randn(batch, grid.size, WIDTH, generator=fixed)
        self.loss_MB = torch.rand(self.module.orders_per_image, batch, generator=fixed)
        self.trained = [values for values in self.module.parameters() if values.requires_grad]

    def draw(self) -> Draw:
        drawn: Draw = self.module.draw(self.batch, self.tokens_BND if self.reads_tokens else None, self.temperature)
        return drawn

    def best(self) -> Tensor:
        order_N: Tensor = self.module.best(None)
        return order_N

    @property
    def reads_tokens(self) -> bool:
        return bool(getattr(self.module, "reads_tokens", False))

    def best_BN(self) -> Tensor:
        """The best order of each image, of a policy that looks at them."""
        order_BN: Tensor = self.module.best(self.tokens_BND)
        return order_BN

    def observe(self, draw: Draw, step: int = 0) -> PolicyStep:
        """Losses that prefer some orders: they differ from step to step, so that no baseline is exact."""
        outcome = Outcome(self.loss_MB.roll(step, 1), torch.arange(self.batch), LEARNING)
        done: PolicyStep = self.module.observe(draw, outcome)
        return done

    def learn(self, steps: int) -> None:
        """Steps as a run takes them, with plain gradient descent."""
        for step in range(steps):
            done = self.observe(self.draw(), step)
            if done.loss is not None:
                grads = torch.autograd.grad(done.loss, self.trained, allow_unused=True)
                with torch.no_grad():
                    for values, grad in zip(self.trained, grads, strict=True):
                        values.sub_(0 if grad is None else 0.5 * grad)


def check_policy(
    component: Buildable, settings: Given = None, *, grid: Grid | None = None, batch: int = 16, examples: int = 10
) -> None:
    """A policy keeps its word about its prior, its draws, its learning and its state.

    As in a run, `draw` and `best` get tokens only where the policy says `reads_tokens`.

    - Before the first update `best()` is the prior order, whatever that is; after updates it is still a bijection.
    - Of a policy that `reads_tokens`, `best(tokens_BND)` is an order for each image, [B, N], at first the prior order
      in every row; an image gets the same order alone as beside others. Its settings say `reads_images = True`.
    - Draws are bijections, int64 [G, N]; group_B and extra_MB name drawn orders; log_prob_G is finite and at most 0;
      a part of a draw holds the orders of its own images, and reads them through its soft order as the whole does.
    - The same generator seed gives the same draws, and no global generator is used.
    - `observe` returns a PolicyStep with a scalar loss or None, and numbers; a gradient reaches the parameters,
      through log_prob_G, a soft order or that loss.
    - `temperature` is a pure function of the clock, finite and not negative.
    - Its state, put into a fresh policy, gives the same best order and the same next draw.

    batch: must be at least the number of orders that its settings ask for.
    """
    grid = grid or Grid(3, 4)

    @for_all(examples, permutations(grid.size))
    def starts_at_its_prior(prior_N: Any) -> None:
        policy = _Policy(component, settings, grid, batch, prior_N)
        _require_order(policy.best(), grid.size, "best()")
        require(policy.best().tolist() == prior_N.tolist(), "before the first update best() must be the prior order")
        if policy.reads_tokens:
            _check_first_orders(policy, prior_N)
        _check_draw(policy, policy.draw())

    prior_N = np.random.default_rng(5).permutation(grid.size)
    one, two, fresh = (_Policy(component, settings, grid, batch, prior_N) for _ in range(3))
    _check_temperature(one.module)
    _check_same_seed(one, two)
    _check_learning(one)
    if one.reads_tokens:
        _check_order_for_each_image(one)
    _check_state(one, fresh)


def _check_first_orders(policy: _Policy, prior_N: Any) -> None:
    """At first nothing is known of any image: all read the prior order."""
    with leaves_global_random_state("best"):
        best_BN = policy.best_BN()
    shape = (policy.batch, policy.grid.size)
    require(tuple(best_BN.shape) == shape, f"best(tokens_BND) must be {list(shape)}, not {list(best_BN.shape)}")
    expected_N = torch.as_tensor(np.array(prior_N, dtype=np.int64))
    require(
        bool((best_BN == expected_N).all()),
        "before the first update best(tokens_BND) must be the prior order in each row",
    )


def _check_order_for_each_image(policy: _Policy) -> None:
    best_BN = policy.best_BN()
    for perm_N in best_BN:
        _require_order(perm_N, policy.grid.size, "each row of best(tokens_BND) after some updates")
    alone_1N = policy.module.best(policy.tokens_BND[2:3])
    require(torch.equal(alone_1N, best_BN[2:3]), "an image must get its best order alone as beside others")
    settings = getattr(policy.module, "settings", None)
    require(
        settings is None or getattr(settings, "reads_images", False),
        "the settings of a policy that reads_tokens must have reads_images: ClassVar[bool] = True",
    )


def _require_order(perm_N: Tensor, size: int, what: str) -> None:
    require(perm_N.dtype == torch.int64, f"{what} must be int64, not {perm_N.dtype}")
    require(tuple(perm_N.shape) == (size,), f"{what} must be [{size}], not {list(perm_N.shape)}")
    require(perm_N.sort().values.tolist() == list(range(size)), f"{what} must name every patch once")


def _check_draw(policy: _Policy, draw: Any) -> None:
    require(isinstance(draw, Draw), f"draw must return a Draw, not {type(draw).__name__}")
    orders, batch, repeats = draw.perm_GN.shape[0], policy.batch, policy.module.orders_per_image
    for perm_N in draw.perm_GN:
        _require_order(perm_N, policy.grid.size, "each drawn order")
    named: list[tuple[str, Tensor, tuple[int, ...]]] = [("group_B", draw.group_B, (batch,))]
    if repeats > 1:
        require(draw.extra_MB is not None, f"orders_per_image is {repeats}, so a draw needs extra_MB")
        named.append(("extra_MB", draw.extra_MB, (repeats - 1, batch)))
    else:
        require(draw.extra_MB is None, "orders_per_image is 1, so extra_MB must be None")
    for name, group, shape in named:
        require(tuple(group.shape) == shape, f"{name} must be {list(shape)}, not {list(group.shape)}")
        require(group.dtype == torch.int64, f"{name} must be int64, not {group.dtype}")
        require(int(group.min()) >= 0 and int(group.max()) < orders, f"{name} must be from 0 to {orders - 1}")
    if draw.log_prob_G is not None:
        require(tuple(draw.log_prob_G.shape) == (orders,), f"log_prob_G must be [{orders}]")
        require(bool(draw.log_prob_G.isfinite().all()), "log_prob_G must be finite")
        require(float(draw.log_prob_G.detach().max()) <= 1e-5, "a log-probability of an order is at most 0")
    if draw.soft is not None:
        soft_BND = draw.soft(policy.tokens_BND)
        require(soft_BND.shape == policy.tokens_BND.shape, "soft(tokens_BND) must be [B, N, D] in slot order")
        require(bool(soft_BND.isfinite().all()), "soft(tokens_BND) must be finite")
    _check_parts(policy, draw)


def _check_parts(policy: _Policy, draw: Draw) -> None:
    """What two processes read is what one would."""
    half = policy.batch // 2
    whole_BND = draw.layout(policy.grid).order(policy.tokens_BND)
    parts = [slice(0, half), slice(half, policy.batch)]
    read = [draw.part(images).layout(policy.grid).order(policy.tokens_BND[images]) for images in parts]
    require(torch.equal(whole_BND, torch.cat(read)), "part(images) must keep the order of each image")
    if draw.soft is not None:
        soft_BND = draw.soft(policy.tokens_BND)
        found = torch.cat([draw.part(images).soft(policy.tokens_BND[images]) for images in parts])  # type: ignore[misc]
        require(
            torch.allclose(soft_BND, found, atol=1e-5),
            "part(images) must read its images through the same soft order: one that differs from image to image needs "
            "a method part(images)",
        )


def _check_temperature(module: Any) -> None:
    require(isinstance(module.orders_per_image, int) and module.orders_per_image >= 1, "orders_per_image is at least 1")
    rate = module.learning_rate
    require(rate is None or (isinstance(rate, float) and rate > 0), "learning_rate must be above 0, or None")
    for step in (0, 10, 30, 50, 89, 90, 119):
        clock = Clock(step, LEARNING.steps_per_epoch, LEARNING.learn_start, LEARNING.learn_stop, LEARNING.total)
        one, two = module.temperature(clock), module.temperature(clock)
        require(isinstance(one, float) and math.isfinite(one) and one >= 0, f"temperature at step {step} is {one!r}")
        require(one == two, "temperature must be a pure function of the clock")


def _check_same_seed(one: _Policy, two: _Policy) -> None:
    for _ in range(3):
        with leaves_global_random_state("draw"):
            first = one.draw()
        second = two.draw()
        require(torch.equal(first.perm_GN, second.perm_GN), "the same generator seed must give the same orders")
        require(torch.equal(first.group_B, second.group_B), "the same generator seed must give the same groups")


def _check_learning(policy: _Policy) -> None:
    """A gradient must reach every parameter by one way or another; some step must give one that is not zero."""
    draw_weights = torch.Generator().manual_seed(2)
    arrived, moved = [False] * len(policy.trained), False
    for step in range(4):
        draw = policy.draw()
        with leaves_global_random_state("observe"):
            done = policy.observe(draw, step)
        _require_step(done)
        ways = [] if done.loss is None else [done.loss]
        if draw.log_prob_G is not None and draw.log_prob_G.requires_grad:
            ways.append(weighted([draw.log_prob_G], draw_weights))
        if draw.soft is not None:
            ways.append(weighted([draw.soft(policy.tokens_BND)], draw_weights))
        for way in ways if policy.trained else []:
            grads = torch.autograd.grad(way, policy.trained, allow_unused=True, retain_graph=True)
            arrived = [was or grad is not None for was, grad in zip(arrived, grads, strict=True)]
            found = [grad for grad in grads if grad is not None]
            require(all(bool(grad.isfinite().all()) for grad in found), "gradients must be finite")
            moved = moved or any(bool(grad.any()) for grad in found)
    require(all(arrived), "a gradient must reach every parameter of a policy")
    require(moved or not policy.trained, "the gradient of a policy must not always be zero")
    policy.learn(5)
    _require_order(policy.best(), policy.grid.size, "best() after some updates")
    _check_draw(policy, policy.draw())


def _require_step(done: Any) -> None:
    require(isinstance(done, PolicyStep), f"observe must return a PolicyStep, not {type(done).__name__}")
    if done.loss is not None:
        require(done.loss.ndim == 0 and bool(done.loss.isfinite()), "the loss of a policy must be one finite number")
        require(done.loss.requires_grad, "a loss without a gradient teaches nothing: return None")
    for name, value in done.numbers().items():
        require(isinstance(value, int | float), f"the metric '{name}' must be a number, not {type(value).__name__}")


def _check_state(learned: _Policy, fresh: _Policy) -> None:
    state = copy.deepcopy(learned.module.state_dict())
    for name, value in state.items():
        if not isinstance(value, Tensor):
            try:
                json.dumps(value)
            except TypeError as error:
                require(False, f"the state '{name}' must be a tensor or JSON-able: {error}")
    fresh.module.load_state_dict(state)
    assert learned.context.generator is not None
    assert fresh.context.generator is not None
    fresh.context.generator.set_state(learned.context.generator.get_state())
    for _ in range(2):
        require(torch.equal(learned.best(), fresh.best()), "state_dict must hold all that best() depends on")
        if learned.reads_tokens:
            same = torch.equal(learned.best_BN(), fresh.best_BN())
            require(same, "state_dict must hold all that best(tokens_BND) depends on")
        one, two = learned.draw(), fresh.draw()
        require(
            torch.equal(one.perm_GN, two.perm_GN), "state_dict and the generator must hold all that draws depend on"
        )
        learned.observe(one)
        fresh.observe(two)
