"""Checkpoints: one folder each, written aside, flushed and renamed; safetensors and JSON with checksums, no pickle.

    checkpoints/step-00000120/
        tensors.safetensors   weights, optimiser state, policy, random states
        state.json            step, numbers and names that are no tensors
        manifest.json         sha256 and size of the two: a folder without it, or against it, is refused

A process that is killed at any moment leaves either the whole new folder or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from reorder_core.errors import RunError, UsageError, one_line

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_ASIDE = "part-"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds: named tensors, and JSON-able numbers and names."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one run, in `folder`; the newest `keep` stay."""

    folder: Path
    keep: int = 2

    def steps(self) -> list[int]:
        """The steps at which there is a checkpoint, whole or not, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, snapshot: Snapshot) -> Path:
        """Write a checkpoint. Raises `RunError` where it cannot be written; the previous one then still stands."""
        final, aside = self.path(step), self.folder / f"{_ASIDE}{step:08d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_partial()
            aside.mkdir()
            _write_files(aside, snapshot)
            if final.exists():  # the same step again, after a resume from an older one
                shutil.rmtree(final)
            aside.rename(final)
            _flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise RunError(self._could_not(error, step)) from error
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)
        return final

    def load_newest(self) -> tuple[Snapshot | None, list[str]]:
        """The newest checkpoint that is whole, and one sentence for each newer one that is not."""
        refused: list[str] = []
        for step in reversed(self.steps()):
            try:
                return read(self.path(step)), refused
            except UsageError as error:
                refused.append(str(error))
        return None, refused

    def _remove_partial(self) -> None:
        for path in self.folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _could_not(self, error: OSError, step: int) -> str:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        kept = [old for old in self.steps() if old != step]
        rest = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no earlier checkpoint"
        return (
            f"the checkpoint of step {step} could not be written to {self.folder}: {reason}; {rest}: "
            f"make room, then go on with --resume"
        )


def trained_weights(snapshot: Snapshot) -> dict[str, Tensor]:
    """The tensors of model and task (`learner/…`): the averaged ones where there are any, as validation has them."""
    averaged = {
        name.replace("ema/module.", "learner/", 1): value
        for name, value in snapshot.tensors.items()
        if name.startswith("ema/module.")
    }
    return averaged or {name: value for name, value in snapshot.tensors.items() if name.startswith("learner/")}


def newest_whole(folder: Path) -> Snapshot:
    """The newest whole checkpoint of a run, of its `checkpoints/`, or the checkpoint that `folder` is.

    Raises `UsageError` where there is none.
    """
    if (folder / _TENSORS).is_file():
        return read(folder)
    below = folder / "checkpoints"
    snapshot, refused = Checkpoints(below if below.is_dir() else folder).load_newest()
    if snapshot is None:
        raise UsageError(refused[0] if refused else f"the folder {folder} holds no checkpoint of a run")
    return snapshot


def _write_files(folder: Path, snapshot: Snapshot) -> None:
    # safetensors refuses tensors that share memory (tied weights): each is written as its own copy
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in snapshot.tensors.items()}
    files = {_TENSORS: safetensors.torch.save(tensors), _STATE: json.dumps(snapshot.state, indent=1).encode()}
    manifest = {name: _seal(content) for name, content in files.items()}
    files[_MANIFEST] = json.dumps(manifest, indent=1).encode()
    for name, content in files.items():
        write_through(folder / name, content)
    _flush_folder(folder)


def _seal(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def write_through(path: Path, content: bytes) -> None:
    """Write a file down to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and a rename is durable enough
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(folder: Path) -> Snapshot:
    """Read a checkpoint. Raises `UsageError` where a file is missing, cut or altered."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        files = {name: (folder / name).read_bytes() for name in (_TENSORS, _STATE)}
    except (OSError, ValueError) as error:
        raise UsageError(f"the checkpoint {folder} is refused: it is not complete ({error})") from error
    for name, content in files.items():
        if manifest.get(name) != _seal(content):
            raise UsageError(f"the checkpoint {folder} is refused: {name} was cut or altered (its checksum differs)")
    try:
        return Snapshot(safetensors.torch.load(files[_TENSORS]), json.loads(files[_STATE]))
    except (SafetensorError, ValueError) as error:
        raise UsageError(f"the checkpoint {folder} is refused: it cannot be read ({error})") from error


@dataclass
class Shelf:
    """Packs modules and optimisers under prefixes, and unpacks them again."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def put_module(self, prefix: str, module: nn.Module) -> None:
        """A module's state_dict; what is no tensor in it (`get_extra_state`) must be JSON-able."""
        for name, value in module.state_dict().items():
            if isinstance(value, Tensor):
                self.tensors[f"{prefix}/{name}"] = value
            else:
                self.extra[f"{prefix}/{name}"] = value

    def take_module(self, prefix: str, module: nn.Module) -> None:
        state = {**self._under(self.tensors, prefix), **self._under(self.extra, prefix)}
        try:
            module.load_state_dict(state)
        except (RuntimeError, KeyError) as error:
            what = one_line(error)
            raise UsageError(f"the checkpoint does not fit this {prefix} ({what}): start the run anew") from error

    def put_optimizer(self, prefix: str, optimizer: Optimizer) -> None:
        """The state of each parameter, by its number; learning rates follow from the step and are not kept."""
        for number, slots in optimizer.state_dict()["state"].items():
            for key, value in slots.items():
                if isinstance(value, Tensor):
                    self.tensors[f"{prefix}/{number}/{key}"] = value
                else:
                    self.extra[f"{prefix}/{number}/{key}"] = value

    def take_optimizer(self, prefix: str, optimizer: Optimizer) -> None:
        state: dict[int, dict[str, Any]] = {}
        for path, value in {**self._under(self.tensors, prefix), **self._under(self.extra, prefix)}.items():
            number, key = path.split("/", 1)
            state.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    @staticmethod
    def _under(items: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {key.removeprefix(f"{prefix}/"): value for key, value in items.items() if key.startswith(f"{prefix}/")}


def take_trained(learner: nn.Module, folder: Path) -> int:
    """Put the trained model and task of a run, as validation has them, into `learner`; returns the step.

    Raises `UsageError` where there is no whole checkpoint, or one of a model or task of other sizes.
    """
    snapshot = newest_whole(folder)
    try:
        Shelf(trained_weights(snapshot), dict(snapshot.state["extra"])).take_module("learner", learner)
    except UsageError as error:
        raise UsageError(
            f"the weights of {folder} are not those of this recipe's model and task: name a run of the same backbone, "
            f"grid, positions and task ({error.__cause__ and str(error.__cause__).splitlines()[-1].strip()})"
        ) from error
    return int(snapshot.state["step"])
