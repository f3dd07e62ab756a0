"""One optimiser step, and what the policy makes of it.

B images (local: of this process, otherwise of the global batch), M orders an image, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from reorder_core.errors import RunError
from reorder_core.interfaces.dataset import Batch
from reorder_core.interfaces.policy import Draw, Outcome, PolicyStep
from reorder_core.interfaces.task import TaskResult
from reorder_core.training.evaluate import to_device
from reorder_core.training.report import is_share
from reorder_core.training.trainer import Trainer

_MIX_STRIDE = 2_000_003


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the global batch. accuracy: mean score, where it was asked for and the batch was not mixed.

    stop: some process was asked to stop.
    """

    loss: float
    lr: float
    stop: bool
    accuracy: float | None = None
    temperature: float | None = None
    policy_metrics: Mapping[str, float] = field(default_factory=dict)
    draw: Draw | None = None


def train_step(
    t: Trainer, loaded: Batch, index_B: Tensor, stop: bool = False, with_accuracy: bool = False
) -> StepResult:
    """Take the step that comes. index_B: the images of the whole batch, of which `loaded` are this process's.

    Raises `RunError` where the loss or the gradient is not finite; the weights are then those of the step before.
    """
    policy, accelerator, phase, lr = t.parts.policy, t.accelerator, t.phase, t.lr
    for group in t.optimizer.param_groups:
        group["lr"] = lr
    batch = to_device(loaded, accelerator.device)
    batch = t.learner.task.prepare(batch, _mixing(t))

    # 1. the order: drawn for the global batch, the same on every process, each reads its own part
    draw = temperature = None
    order: Any
    if phase == "learn":
        temperature = policy.temperature(t.table.clock(t.step))
        draw = policy.draw(len(index_B), _tokens(t, batch), temperature)
        order = draw.part(t.plan.shares.part(len(index_B)))
    else:
        order = t.best_layout(batch.images_BCHW)

    # 2. the model: one pass with gradient, and one without for each further order of the same images
    result: TaskResult = t.wrapped(batch, order)
    accelerator.backward(result.loss_B.mean())
    loss_MB, stop = _global_losses(t, _local_losses(t, result, batch, order), stop)
    norm = _clip(t)
    loss = float(loss_MB[0].double().mean())
    _require_finite(t, loss, norm)
    t.optimizer.step()
    t.optimizer.zero_grad(set_to_none=True)
    if t.ema is not None:
        t.ema.update_parameters(t.learner)
    t.learner.task.after_step(t.step + 1)

    # 3. the policy: learns from the losses of all images
    found = _policy_step(t, draw, loss_MB, index_B, with_accuracy) if draw is not None else {}
    accuracy = _accuracy(t, result, loaded, batch) if with_accuracy else None
    return StepResult(loss, lr, stop, accuracy, temperature, found, draw)


def _mixing(t: Trainer) -> torch.Generator:
    """The generator of batch-wise augmentation: a function of seed, step and process, so no state is kept."""
    plan = t.plan
    return torch.Generator().manual_seed(
        plan.seed + _MIX_STRIDE * (t.step + 1) * plan.shares.processes + plan.shares.process
    )


def _tokens(t: Trainer, batch: Batch) -> Tensor | None:
    """Embedded patches of the global batch, [B, N, D], for a policy that says `reads_tokens`; else None."""
    if not getattr(t.parts.policy, "reads_tokens", False):
        return None
    tokens_BND: Tensor = t.accelerator.gather(t.tokens(batch.images_BCHW))
    return tokens_BND


def _local_losses(t: Trainer, result: TaskResult, batch: Batch, order: Any) -> Tensor:
    """The loss of each local image under each of its orders, detached, [B, M]; column 0 is the trained one."""
    losses = [result.loss_B.detach().float()]
    if isinstance(order, Draw) and order.extra_MB is not None:
        with torch.no_grad():
            for extra in range(len(order.extra_MB)):
                losses.append(t.learner(batch, order.layout(t.parts.grid, extra)).loss_B.float())
    return torch.stack(losses, dim=1)


def _global_losses(t: Trainer, local_BM: Tensor, stop: bool) -> tuple[Tensor, bool]:
    """The losses of all processes, [M, B], and whether any of them was asked to stop: one collective for both."""
    if t.plan.shares.processes == 1:
        return local_BM.T, stop
    asked_B1 = torch.full_like(local_BM[:, :1], float(stop))
    everyone = t.accelerator.gather(torch.cat([local_BM, asked_B1], dim=1))
    return everyone[:, :-1].T, bool(everyone[:, -1].any())


def _clip(t: Trainer) -> float | None:
    """Clip the model's gradient (never together with the policy's); its norm before, where it was taken."""
    largest = t.parts.recipe.training.optimizer.clip
    if largest is None:
        return None
    return float(t.accelerator.clip_grad_norm_(t.learner.parameters(), largest))


def _require_finite(t: Trainer, loss: float, norm: float | None) -> None:
    # with fp16 a gradient overflows now and then: the scaler skips that step by itself
    overflow = norm is not None and not math.isfinite(norm) and t.accelerator.scaler is None
    if math.isfinite(loss) and not overflow:
        return
    what = "gradient" if math.isfinite(loss) else "loss"
    raise RunError(
        f"the {what} is not finite in step {t.step + 1} (loss {loss:.4g}, learning rate {t.lr:.3g}): "
        f"lower training.optimizer.lr, or use training.precision: fp32"
    )


def _policy_step(t: Trainer, draw: Draw, loss_MB: Tensor, index_B: Tensor, logged: bool) -> Mapping[str, float]:
    """Show the policy what came of its draw, and update its parameters; its numbers, where they are logged or free."""
    policy, optimizer, shares = t.parts.policy, t.policy_optimizer, t.plan.shares
    outcome = Outcome(
        loss_MB=loss_MB,
        index_B=index_B.to(loss_MB.device),
        clock=t.table.clock(t.step),
        local=shares.part(len(index_B)),
    )
    if optimizer is not None and draw.soft is not None:
        _reduce_soft_gradients(t)  # the task's loss has flowed through the order into the policy
    step: PolicyStep = policy.observe(draw, outcome)
    found = {} if callable(step.metrics) and not logged else step.numbers()
    if optimizer is not None:
        if step.loss is not None:
            step.loss.backward()  # type: ignore[no-untyped-call]
        _require_finite_policy(t)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return found


def _require_finite_policy(t: Trainer) -> None:
    gradients = [parameter.grad for parameter in t.parts.policy.parameters() if parameter.grad is not None]
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise RunError(
            f"the policy's gradient is not finite in step {t.step + 1}: lower its learning_rate, or raise its "
            f"temperature"
        )


def _reduce_soft_gradients(t: Trainer) -> None:
    """The mean over processes, without the loss scale of fp16 (the policy's optimiser is not the scaler's)."""
    scale = t.accelerator.scaler.get_scale() if t.accelerator.scaler is not None else 1.0
    for parameter in t.parts.policy.parameters():
        if parameter.grad is not None:
            mean = t.accelerator.reduce(parameter.grad, "mean") / scale
            parameter.grad = torch.where(mean.isfinite(), mean, 0)


def _accuracy(t: Trainer, result: TaskResult, loaded: Batch, batch: Batch) -> float | None:
    """The mean score of the batch; None where it is no share or not the metric, or the task mixed its targets."""
    task = t.learner.task
    if not is_share(task.primary) or getattr(task, "score", task.primary) != task.primary:
        return None
    if _is_mixture(batch.target) and not _is_mixture(loaded.target):
        return None
    with torch.no_grad():
        score_B = t.learner.task.score_B(result, batch).float()
        return float(t.accelerator.gather(score_B).mean())


def _is_mixture(target: Any) -> bool:
    return isinstance(target, Tensor) and target.is_floating_point()
