"""Everything of a run that changes while it trains, and how it is saved and restored.

B images of the global batch, M orders an image, N patches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reorder_core.errors import UsageError
from reorder_core.layout import Layout
from reorder_core.training.build import Learner, Parts
from reorder_core.training.checkpoint import Shelf, Snapshot
from reorder_core.training.loader import Plan, Shares, steps_in_epoch
from reorder_core.training.optimizer import model_optimizer, policy_optimizer
from reorder_core.training.phases import Phase, Timetable, learning_rate, timetable

_RESTART_SEED = 7919  # away from the seed that the weights were drawn with


@dataclass
class Trainer:
    """A run at one moment: `step` optimiser steps are done, `validated` epochs have been validated.

    learner: the plain module. wrapped: the same for the training pass, as several processes need it.
    seconds: wall time so far, of all parts of a resumed run; train_seconds: without validation.
    """

    parts: Parts
    accelerator: Accelerator
    identity: dict[str, Any]
    table: Timetable
    plan: Plan
    learner: Learner
    wrapped: Any
    optimizer: Any
    policy_optimizer: Any
    ema: AveragedModel | None
    step: int = 0
    validated: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    policy_shown: Mapping[str, float] = field(default_factory=dict)
    _layouts: dict[str, Layout] = field(default_factory=dict)

    @classmethod
    def make(
        cls, parts: Parts, accelerator: Accelerator, identity: dict[str, Any], is_control: bool = False
    ) -> Trainer:
        """Put the parts on their device and give them optimisers. is_control: of a run that has a policy."""
        training, device = parts.recipe.training, accelerator.device
        shares = Shares(accelerator.process_index, accelerator.num_processes)
        images = len(parts.dataset.train)
        steps = steps_in_epoch(images, training.batch_size * shares.processes, training.steps_per_epoch)
        plan = Plan(images, parts.recipe.seed, training.batch_size, steps, shares)
        learner = parts.learner.to(device)
        # copied before Accelerate binds the forward pass to the original
        ema = training.ema and AveragedModel(
            copy.deepcopy(learner),
            multi_avg_fn=get_ema_multi_avg_fn(training.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        if training.compile:
            learner.model.backbone.compile()  # only this: orders are drawn and applied outside
        optimizer = model_optimizer(learner, training.optimizer, device)
        wrapped, optimizer = accelerator.prepare(learner, optimizer)
        policy = parts.policy.to(device) if parts.policy is not None else None
        torch.manual_seed(parts.recipe.seed + _RESTART_SEED * (1 + shares.process))  # its own dropout everywhere
        return cls(
            parts=parts,
            accelerator=accelerator,
            identity=identity,
            table=timetable(training, steps, parts.policy is not None, holds=is_control),
            plan=plan,
            learner=learner,
            wrapped=wrapped,
            optimizer=optimizer,
            policy_optimizer=None if policy is None else policy_optimizer(policy, training.optimizer),
            ema=ema or None,
        )

    @property
    def phase(self) -> Phase:
        """The phase of the step that comes."""
        return self.table.phase(self.step)

    @property
    def epoch(self) -> int:
        """The epoch of the step that comes, counted from 0."""
        return self.table.epoch(self.step)

    @property
    def lr(self) -> float:
        """The learning rate of the step that comes."""
        return learning_rate(self.parts.recipe.training, self.table, self.step)

    def best_order(self) -> Tensor:
        """The order to read with outside of learning steps, int64 [N]: the fixed one, or the policy's best so far."""
        if self.parts.policy is None or self.table.phase(self.step) == "warm_up":
            return torch.from_numpy(self.parts.order_N)
        with torch.no_grad():
            best_N: Tensor = self.parts.policy.best(None).detach().cpu()
        return best_N

    def best_layout(self, images_BCHW: Tensor | None = None, learner: Learner | None = None) -> Layout:
        """What to read with outside of learning steps, on the device: `best_order`, made once for each phase in which
        it cannot change; of a policy that looks at the images the best order of each (G = B).

        images_BCHW: those to be read, of this process. learner: who reads them, as its embedding is what the policy
        looks at; left out: the one that is trained.
        """
        if self.reads_images and images_BCHW is not None:
            tokens_BND = self.tokens(images_BCHW, learner)
            with torch.no_grad():
                perm_BN: Tensor = self.parts.policy.best(tokens_BND).detach()
            return Layout(self.parts.grid, perm_BN, torch.arange(len(perm_BN), device=perm_BN.device))
        if self.phase == "learn":
            return self._layout()
        if self.phase not in self._layouts:
            self._layouts[self.phase] = self._layout()
        return self._layouts[self.phase]

    @property
    def reads_images(self) -> bool:
        """Whether the step that comes reads each image in an order that the policy makes for it."""
        return bool(getattr(self.parts.policy, "reads_tokens", False)) and self.phase != "warm_up"

    def tokens(self, images_BCHW: Tensor, learner: Learner | None = None) -> Tensor:
        """Embedded patches [B, N, D] in patch order, float32, detached: what a policy that `reads_tokens` is shown."""
        model = (learner or self.learner).model
        with torch.no_grad(), self.accelerator.autocast():
            tokens_BND: Tensor = model.embed(images_BCHW).float()
        return tokens_BND

    def _layout(self) -> Layout:
        return Layout.fixed(self.parts.grid, self.best_order().to(self.accelerator.device))

    def validation_due(self) -> bool:
        epochs, rest = divmod(self.step, self.table.steps_per_epoch)
        wanted = epochs % self.parts.recipe.training.validate.every == 0 or self.step == self.table.total
        return self.step > 0 and rest == 0 and wanted and self.validated < epochs

    def save_due(self) -> bool:
        every = self.parts.recipe.training.checkpoint.every_steps or self.table.steps_per_epoch
        return self.step % every == 0 or self.step == self.table.total

    def snapshot(self, metrics_bytes: int) -> Snapshot:
        """All that a resume needs. Every process must call it: random states are collected."""
        shelf = Shelf()
        shelf.put_module("learner", self.learner)
        shelf.put_optimizer("optimizer", _plain(self.optimizer))
        if self.ema is not None:
            shelf.put_module("ema", self.ema)
        if self.parts.policy is not None:
            shelf.put_module("policy", self.parts.policy)
        if self.policy_optimizer is not None:
            shelf.put_optimizer("policy_optimizer", self.policy_optimizer)
        shelf.tensors["random/run"] = self.parts.generator.get_state()
        shelf.tensors["random/cpu"] = self._collect(torch.get_rng_state())
        if self.accelerator.device.type == "cuda":
            shelf.tensors["random/cuda"] = self._collect(torch.cuda.get_rng_state())
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "validated": self.validated,
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "metrics_bytes": metrics_bytes,
            "identity": self.identity,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "extra": shelf.extra,
            "versions": {name: version(name) for name in ("reorder", "torch", "accelerate", "timm")},
        }
        return Snapshot(shelf.tensors, state)

    def restore(self, snapshot: Snapshot) -> int:
        """Continue from a snapshot; returns the length in bytes of `metrics.jsonl` at that moment.

        Raises `UsageError` where it belongs to another recipe or another number of processes.
        """
        state = snapshot.state
        self._refuse_other(state.get("identity", {}))
        shelf = Shelf(dict(snapshot.tensors), dict(state["extra"]))
        shelf.take_module("learner", self.learner)
        shelf.take_optimizer("optimizer", _plain(self.optimizer))
        if self.ema is not None:
            shelf.take_module("ema", self.ema)
        if self.parts.policy is not None:
            shelf.take_module("policy", self.parts.policy)
        if self.policy_optimizer is not None:
            shelf.take_optimizer("policy_optimizer", self.policy_optimizer)
        process = self.plan.shares.process
        self.parts.generator.set_state(shelf.tensors["random/run"])
        torch.set_rng_state(shelf.tensors["random/cpu"][process])
        if self.accelerator.device.type == "cuda" and "random/cuda" in shelf.tensors:
            torch.cuda.set_rng_state(shelf.tensors["random/cuda"][process])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.validated = state["step"], state["validated"]
        self.seconds, self.train_seconds = state["seconds"], state["train_seconds"]
        self._layouts.clear()
        return int(state["metrics_bytes"])

    def _refuse_other(self, identity: dict[str, Any]) -> None:
        parts = {"recipe": "recipe", "order": "order", "processes": "number of processes", "weights_from": "start"}
        for key, what in parts.items():
            if identity.get(key) != self.identity.get(key):
                raise UsageError(
                    f"the checkpoint belongs to another {what} ({identity.get(key)}, not {self.identity.get(key)}): "
                    f"start the run anew, without --resume"
                )

    def _collect(self, state: Tensor) -> Tensor:
        """The random states of all processes, uint8 [P, n]."""
        collected: Tensor = self.accelerator.gather(state[None].to(self.accelerator.device))
        return collected.cpu()


def _plain(optimizer: Any) -> Any:
    """The torch optimiser inside Accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)
