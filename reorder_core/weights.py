"""Weights from a file into a module, with one sentence about every tensor that does not fit."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reorder_core.errors import UsageError, one_line

_INSIDE = ("model", "state_dict", "module")  # what training scripts call the weights in their checkpoints
_SHOWN = 4
# What unpickling bytes that are no pickle raises, besides what it should.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, LookupError, ValueError, TypeError, AttributeError),
    *(SafetensorError, pickle.UnpicklingError),
)


def read_weights(path: Path | str, of_run: str = "model.backbone.") -> dict[str, Tensor]:
    """The named tensors of a safetensors or torch file; of the checkpoint of a run those below `of_run`.

    A folder is a run, its `checkpoints/`, or one checkpoint: the newest is taken. Torch files are read as data only
    (no pickled code; the arguments that training scripts save beside the weights are let through).
    Raises `UsageError` where there is no such file or it holds no weights.
    """
    place = Path(path).expanduser()
    try:
        found: Any = _of_run(place) if place.is_dir() else _of_file(place)
    except _UNREADABLE as error:
        reason = one_line(error, 200)
        raise UsageError(f"the weights {path} cannot be read as safetensors or as a torch file: {reason}") from error
    while isinstance(found, Mapping) and (inner := next((key for key in _INSIDE if _is_weights(found.get(key))), "")):
        found = found[inner]
    if not _is_weights(found):
        raise UsageError(f"{path} holds no named tensors: give a file of weights")
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    prefix = f"learner/{of_run}"
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return own or tensors


def load_weights(
    module: nn.Module,
    path: Path | str,
    rename: Callable[[str], str | None] | None = None,
    optional: Callable[[str], bool] | tuple[str, ...] = (),
) -> None:
    """Put the weights of a file into `module`; nothing is loaded unless everything fits.

    rename: the module's name of a tensor of the file, or None for one that is not wanted. optional: names (or their
    beginnings) that the file may lack; they keep their initial values. So does what stands between the blocks.
    Raises `UsageError` that names tensors that are missing, unexpected, or of another shape.
    """
    state = {}
    for name, value in read_weights(path).items():
        new = name if rename is None else rename(name)
        if new is not None:
            state[new] = value
    own = module.state_dict()
    may_lack = (lambda name: name.startswith(optional)) if isinstance(optional, tuple) else optional
    missing = [name for name in own if name not in state and not may_lack(name) and not name.startswith("between.")]
    unexpected = [name for name in state if name not in own]
    other = [
        f"{name} is {_shape(state[name])} and should be {_shape(value)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    told = [
        f"{what}: {_some(names)}"
        for what, names in (("of another shape", other), ("missing", missing), ("not known here", unexpected))
        if names
    ]
    if told:
        raise UsageError(f"the weights {path} do not fit this model ({'; '.join(told)}): change its settings to theirs")
    module.load_state_dict({name: state.get(name, value) for name, value in own.items()})


def _of_run(folder: Path) -> dict[str, Tensor]:
    """The weights in the newest whole checkpoint, the averaged ones where there are any."""
    from reorder_core.training.checkpoint import newest_whole, trained_weights

    return trained_weights(newest_whole(folder))


def _of_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, (Tensor, Mapping)) for inner in value.values())


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
