"""Which parameters decay, and the optimisers of the model and of its policy."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.optim import AdamW

from reorder_core.interfaces.policy import Policy


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay pulls on a parameter: not on biases, norms, positions and other vectors."""
    plain = parameter.ndim <= 1 or name.endswith("bias")
    return not (
        plain or getattr(parameter, "_no_weight_decay", False) or getattr(parameter, "_no_weight_decay_", False)
    )


def exempt_by_name(module: nn.Module) -> set[str]:
    """Parameters that timm-like modules exempt through `no_weight_decay()`, by their full names."""
    found: set[str] = set()
    for prefix, part in module.named_modules():
        if callable(listed := getattr(part, "no_weight_decay", None)):
            found |= {f"{prefix}.{name}".lstrip(".") for name in listed()}
    return found


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: parameters that decay, and those that do not."""
    exempt = exempt_by_name(module)
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[decays(name, parameter) and name not in exempt].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decay else 0.0}
        for decay, parameters in groups.items()
        if parameters
    ]


def model_optimizer(module: nn.Module, settings: Any, device: torch.device) -> AdamW:
    """AdamW of the model and the task's head; `settings` is the recipe's `training.optimizer`."""
    return AdamW(
        parameter_groups(module, settings.weight_decay),
        lr=settings.lr,
        betas=tuple(settings.betas),
        fused=device.type in ("cpu", "cuda"),
    )


def policy_optimizer(policy: Policy, settings: Any) -> AdamW | None:
    """AdamW of the policy's own parameters, without decay; None where it has none (a bandit, say)."""
    rate = settings.lr if policy.learning_rate is None else policy.learning_rate
    module = cast(nn.Module, policy)
    own = getattr(policy, "parameter_groups", None)
    groups: list[dict[str, Any]] = [{"params": module.parameters()}] if own is None else list(own())
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return None
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    return AdamW(groups, lr=rate, betas=tuple(settings.betas), weight_decay=0.0, fused=fused)
