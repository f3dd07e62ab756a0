"""The folder of a run: where it is, what is written into it before the first step, and which one a resume continues."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reorder_core.errors import UsageError
from reorder_core.saved import write_json
from reorder_core.training.checkpoint import write_through

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reorder_core.grid import Grid
    from reorder_core.recipe import Recipe

_PACKAGES = ("reorder", "torch", "timm", "accelerate", "numpy", "mamba-ssm", "causal-conv1d")


def new_folder(out: Path, recipe: Recipe) -> Path:
    """A fresh `out/<name>/<UTC time>-<fingerprint>/`. Raises `UsageError` where it cannot be made."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    base = f"{stamp}-{recipe.fingerprint()[:8]}"
    try:
        (out / recipe.name).mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            folder = out / recipe.name / (base if number == 0 else f"{base}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UsageError(f"{out / recipe.name} cannot be written ({error.strerror}): choose another --out") from error
    raise UsageError(f"{out / recipe.name} has a thousand runs of this second: wait a second")


def newest_folder(out: Path, recipe: Recipe) -> Path:
    """The newest run of this recipe under `out`. Raises `UsageError` where there is none."""
    wanted, others = recipe.fingerprint(), []
    for folder in sorted((out / recipe.name).glob("*/"), reverse=True):
        try:
            found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if found == wanted:
            return folder
        others.append(folder)
    if others:
        raise UsageError(
            f"there is no run of this recipe to resume under {out}: the newest of that name, {others[0]}, was made "
            f"with other settings; give the same recipe and -o, or start a new run without --resume"
        )
    raise UsageError(f"there is no run of '{recipe.name}' to resume under {out}: start one without --resume")


def write_head(folder: Path, recipe: Recipe, device: str, processes: int) -> None:
    """`recipe.yaml` and `environment.json`, before the first step."""
    folder.mkdir(parents=True, exist_ok=True)
    write_through(folder / "recipe.yaml", recipe.to_yaml().encode())
    write_json(folder / "environment.json", environment(recipe, device, processes))


def environment(recipe: Recipe, device: str, processes: int) -> dict[str, Any]:
    """What a reader needs to know about where a run was made."""
    return {
        "fingerprint": recipe.fingerprint(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "git_revision": _git_revision(),
        "device": device,
        "processes": processes,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def write_order(folder: Path, order_N: NDArray[np.int64], grid: Grid, name: str, **provenance: Any) -> None:
    """`order.json`: the order that the run ended with, as the ordering `file` reads it back."""
    content = {
        "name": name,
        "grid": str(grid),
        "permutation": order_N.tolist(),
        "convention": "permutation[slot] = patch; patches are numbered row by row",
        "provenance": provenance,
    }
    write_json(folder / "order.json", content)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The revision of the source that runs, where it is a checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
