"""One run of one policy on one planted problem, through the public face of policies only.

B images of a batch, M orders an image, G orders of a draw, N patches, F features of a token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from reorder_core import Clock, Context, DataFacts, Draw, Outcome, Policy, RunError
from reorder_core.catalogue import Catalogue
from reorder_core.settings import ComponentRef
from reorder_policy_bench.noise import Images
from reorder_policy_bench.problems import PROBLEMS, Planted, grid_of

IMAGES = 8192  # of the training set that the batches come from
WIDTH = 32  # of the embedded patches that a policy may look at
_DEFAULT_RATE = 1e-3  # of a policy that leaves its learning rate to the run's optimiser (a recipe's default)
_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Conditions:
    """What a run is about.

    noise: standard deviation of the noise between images, in units of that of the clean reward over random orders.
    interaction: the share of the noise's variance that depends on the order as well as on the image.
    """

    problem: str
    size: int
    noise: float
    steps: int
    batch: int = 64
    interaction: float = 0.0


@dataclass(frozen=True)
class Look:
    """The noiseless reward of `best()` after so many steps, and the seconds that the policy had used by then."""

    step: int
    seconds: float
    reward: float


@dataclass(frozen=True)
class Trial:
    """What one seed gave. orders: G of its first draw. samples_a_step: evaluations of the reward, batch · M."""

    seed: int
    orders: int
    samples_a_step: int
    looks: tuple[Look, ...]

    def reached(self, level: float) -> Look | None:
        """The first look from which on every look is at least `level`; None where the last one is not."""
        found = None
        for look in reversed(self.looks):
            if look.reward < level:
                break
            found = look
        return found


def look_steps(steps: int) -> Iterator[int]:
    """After which steps the reward is looked at: all of the first 50, then every 2 % of what was done, and the last."""
    step = 0
    while step < steps:
        yield step
        step += max(1, step // 50)
    yield steps


def planted(conditions: Conditions, seed: int) -> tuple[Planted, Context]:
    """The problem of this seed, and the context that its policies are built in: all policies get the same.

    Every policy starts from one random order, whose reward is about 0.
    """
    grid = grid_of(conditions.size)
    number = [*PROBLEMS].index(conditions.problem)
    rng = np.random.default_rng([seed, number, conditions.size])
    problem = PROBLEMS[conditions.problem](grid, rng)
    context = Context(
        grid,
        width=WIDTH,
        data=DataFacts(grid.rows, grid.columns, 1, classes=10, train=IMAGES, validation=IMAGES),
        prior_N=rng.permutation(grid.size),
        generator=torch.Generator().manual_seed(seed),
        builder=lambda ref, where: Catalogue.load().build(ref, where),
    ).changed()
    return problem, context


def built(ref: ComponentRef, context: Context) -> Policy:
    """The policy; its own setting `prior` names the order that it starts from, as in a recipe."""
    catalogue = Catalogue.load()
    settings = catalogue.settings(catalogue.find("policy", ref.name), ref.settings)
    prior = getattr(settings, "prior", None)
    if prior is not None:
        context = context.changed(prior_N=context.resolve(prior).permutation(context.grid))
    return cast(Policy, catalogue.build(ref, context))


def run_trial(ref: ComponentRef, conditions: Conditions, seed: int, tick: Callable[[], None] = lambda: None) -> Trial:
    """Run the whole schedule; `tick` after each step.

    The clock runs as in a recipe without warm-up: the policy learns in all of the steps. Raises `ReorderError` where
    the policy cannot be built or what it does is not finite.
    """
    problem, context = planted(conditions, seed)
    policy = built(ref, context)
    optimizer = _optimizer(policy)
    images = Images(conditions, problem, seed, IMAGES, WIDTH)
    watched = {*look_steps(conditions.steps)}
    held_out_BND = images.embedded(conditions.batch) if _reads(policy) else None
    looks = [Look(0, 0.0, _reward_of_best(policy, problem, held_out_BND))]
    seconds, orders, samples = 0.0, 0, 0
    for step in range(conditions.steps):
        clock = Clock(step, max(1, IMAGES // conditions.batch), 0, conditions.steps, conditions.steps)
        index_B = images.next_batch()
        tokens_BND = images.embedded(conditions.batch) if _reads(policy) else None
        started = time.perf_counter()
        draw = policy.draw(conditions.batch, tokens_BND, policy.temperature(clock))
        loss_MB, rated = _losses(draw, images, index_B)
        _learn(policy, optimizer, draw, Outcome(loss_MB, index_B, clock))
        seconds += time.perf_counter() - started - rated
        if step == 0:
            orders, samples = draw.perm_GN.shape[0], loss_MB.numel()
        if step + 1 in watched:
            looks.append(Look(step + 1, seconds, _reward_of_best(policy, problem, held_out_BND)))
        tick()
    return Trial(seed, orders, samples, tuple(looks))


def _losses(draw: Draw, images: Images, index_B: Tensor) -> tuple[Tensor, float]:
    """The losses [M, B] of a draw, and the seconds that the reward of hard orders took, which are not the policy's.

    A soft order gets its gradient here, as the task's loss gives it in a run.
    """
    started = time.perf_counter()
    problem, noise = images.problem, images.noise(index_B)
    rows = [draw.group_B, *(draw.extra_MB if draw.extra_MB is not None else ())]
    reward_G = problem.of_orders(draw.perm_GN)
    loss_MB = torch.stack([1 - reward_G[group_B] - noise.of_orders(draw.perm_GN[group_B]) for group_B in rows])
    rated = time.perf_counter() - started
    if draw.soft is not None:
        sequence_BNF = draw.soft(noise.tokens_BNF)
        reward_B = problem.reward(sequence_BNF[..., : problem.tokens_NF.shape[1]])
        loss_B = 1 - reward_B - noise.of_sequence(sequence_BNF)
        loss_B.mean().backward()  # type: ignore[no-untyped-call]
        loss_MB[0] = loss_B.detach()
    return loss_MB, rated


def _learn(policy: Policy, optimizer: AdamW | None, draw: Draw, outcome: Outcome) -> None:
    step = policy.observe(draw, outcome)
    if optimizer is None:
        return
    if step.loss is not None:
        if not bool(step.loss.isfinite()):
            raise RunError(f"the policy's loss is not finite in step {outcome.clock.step + 1}: lower its learning rate")
        step.loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _reads(policy: Policy) -> bool:
    """Whether it looks at the images now: a curriculum does as long as its learner has the word."""
    return bool(getattr(policy, "reads_tokens", False))


@torch.no_grad()
def _reward_of_best(policy: Policy, problem: Planted, held_out_BND: Tensor | None) -> float:
    """Of a policy that looks at images the mean over images that it never learned from."""
    if held_out_BND is None or not _reads(policy):
        return float(problem.of_orders(policy.best()[None])[0])
    return float(problem.of_orders(policy.best(held_out_BND)).double().mean())


def _optimizer(policy: Policy) -> AdamW | None:
    """AdamW of the policy's own parameters at its own rates, without decay, as in a run; None without parameters."""
    own = getattr(policy, "parameter_groups", None)
    groups: list[dict[str, Any]] = [{"params": cast(nn.Module, policy).parameters()}] if own is None else list(own())
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    groups = [group for group in groups if group["params"]]
    rate = _DEFAULT_RATE if policy.learning_rate is None else policy.learning_rate
    return AdamW(groups, lr=rate, betas=_BETAS, weight_decay=0.0) if groups else None
