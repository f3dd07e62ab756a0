"""Finished run folders, read: which model, which order, how good, and the score of each validation image.

N patches, S images of the validation split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Grid, ReorderError, UsageError, permutation
from reorder_core.catalogue import Catalogue
from reorder_core.recipe_source import read_source

_RANDOM_POLICY = "uniform"  # draws a new order a batch and never learns: no order stands for such a run
_OF_LEARNED = ("learned_static", "inverse", "reverse")  # controls whose order is made of the one their run learned
# what changes no weight and no metric, or is told apart elsewhere: the rest of a recipe says which model it is
_NOT_THE_MODEL = ("name", "seed", "data", "patch", "ordering", "policy", "controls")
_NO_RESULT = ("workers", "log_every", "checkpoint", "validate", "phases")


@dataclass(frozen=True)
class Finished:
    """One finished run, a control counting as one.

    order_N: int64 [N], `order[slot] = patch`. order_key: what makes two runs be of the same order; order_name: what the
    order is called; how: the settings that it was learned with, None of a fixed order. value: the primary metric;
    score_S: that of each image, float64 [S], as the run saved it. model: the parts of the recipe that say which model
    was trained how.
    """

    folder: Path
    data: Mapping[str, Any]
    patch: int
    grid: Grid
    model: Mapping[str, Any]
    order_N: NDArray[np.int64]
    order_key: str
    order_name: str
    how: Mapping[str, Any] | None
    seed: int
    metric: str
    higher_is_better: bool
    value: float
    score_S: NDArray[np.float64]

    @property
    def learned(self) -> bool:
        """Made by a policy, or of an order that a policy made."""
        return self.how is not None


def read_runs(folders: Sequence[Path], fixed_only: bool = False) -> tuple[list[Finished], list[str]]:
    """All runs in these folders with their controls, and a sentence for each one that was left out.

    fixed_only: leave out learned orders.
    Raises `UsageError` for a folder that holds no run, and where no finished one is left.
    """
    found: list[Finished] = []
    notes: list[str] = []
    for folder in dict.fromkeys(each.resolve() for each in folders):
        for place, parent in _places(folder, notes):
            run = _read(place, parent)
            if isinstance(run, str):
                notes.append(f"{place} is left out: {run}")
            elif fixed_only and run.learned:
                notes.append(f"{place} is left out: its order was learned, and --fixed-only was asked for")
            else:
                found.append(run)
    if not found:
        reason = f" ({notes[0]})" if notes else ""
        raise UsageError(
            f"there is no run of one order in what was named{reason}: name finished runs, fixed or learned"
        )
    return found, notes


def _places(folder: Path, notes: list[str]) -> Iterator[tuple[Path, Path | None]]:
    """The run and its finished controls, each control with the run it belongs to."""
    if not folder.exists():
        raise UsageError(f"{folder}: there is no such run")
    if not (folder / "recipe.yaml").is_file():
        inside = sorted(each.parent for each in folder.glob("*/recipe.yaml")) if folder.is_dir() else []
        hint = f": did you mean {inside[-1]}?" if inside else ": give the folder that holds recipe.yaml and result.json"
        raise UsageError(f"{folder} is no folder of a run{hint}")
    if not (folder / "result.json").is_file():
        notes.append(f"{folder} is left out: the run is not finished, continue it with `reorder run … --resume`")
        return
    yield folder, None
    for control in sorted((folder / "controls").glob("*/recipe.yaml")):
        if (control.parent / "result.json").is_file():
            yield control.parent, folder
        else:
            notes.append(f"{control.parent} is left out: this control is not finished")


def _read(folder: Path, parent: Path | None) -> Finished | str:
    """The run, or why no single order stands for its accuracy."""
    recipe = read_source(folder / "recipe.yaml").data
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        saved = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        score_S = np.load(folder / "scores.npy", allow_pickle=False).astype(np.float64)
        grid, provenance = Grid.parse(str(saved["grid"])), saved["provenance"]
        order_N = permutation.validate(saved["permutation"], grid.size, what=str(folder / "order.json"))
        why_not = _no_single_order(recipe, provenance)
        if why_not:
            return why_not
        above = None if parent is None else read_source(parent / "recipe.yaml").data.get("policy")
        key, name, how = _order(recipe, str(saved["name"]), order_N, provenance, above)
        metric, metrics = str(result["primary"]), result["metrics"]
        return Finished(
            folder=folder,
            data=recipe["data"],
            patch=int(recipe["patch"]["size"]),
            grid=grid,
            model=_model(recipe),
            order_N=order_N,
            order_key=key,
            order_name=name,
            how=how,
            seed=int(recipe["seed"]),
            metric=metric,
            higher_is_better=bool(result["higher_is_better"]),
            value=float(metrics[metric] if metric in metrics else score_S.mean()),
            score_S=score_S,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ReorderError) as error:
        raise UsageError(f"the run {folder} cannot be read ({error}): is it whole?") from error


def _no_single_order(recipe: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    policy = recipe.get("policy")
    if provenance.get("further_orders"):
        return "its model reads several orders at once, and no one of them stands for its accuracy"
    if policy is None:
        return ""
    if policy["name"] == _RANDOM_POLICY:
        return "it was trained in a new random order every batch, and learned none"
    catalogue = Catalogue.load()
    settings = catalogue.settings_class(catalogue.find("policy", policy["name"]))
    if getattr(settings, "reads_images", False):
        return f"the policy '{policy['name']}' gives every image an order of its own"
    return ""


def _order(
    recipe: Mapping[str, Any],
    name: str,
    order_N: NDArray[np.int64],
    provenance: Mapping[str, Any],
    above: Mapping[str, Any] | None,
) -> tuple[str, str, Mapping[str, Any] | None]:
    """Key, name, and how it was learned. above: the policy of the run that a control belongs to.

    Fixed orders are the same where their permutations are. Seeds of a policy learn different orders in the same way:
    they are one entry, and their statistics are averaged.
    """
    policy = recipe.get("policy")
    taught = _taught_file(recipe) if policy is None else None
    if taught is not None:
        made = f"{name} of an order" if name != "file" else "an order"
        name = f"{made} that {taught} learned ({Path(recipe['ordering']['path']).name})"
        return json.dumps([name], sort_keys=True), name, {"file": taught}
    derived = policy is None and above is not None and name in _OF_LEARNED
    teacher = above if derived else policy
    if teacher is None:
        return order_N.tobytes().hex(), name, None
    rest = {key: value for key, value in teacher.items() if key != "name"}
    how = {**rest, "phases": recipe["training"]["phases"]}
    if not derived:
        how["from"] = str(provenance["initial_order"])
    name = f"{name if derived else 'learned'} ({teacher['name']})"
    return json.dumps([name, how], sort_keys=True), name, how


def _taught_file(recipe: Mapping[str, Any]) -> str | None:
    """The policy that learned the saved order which this run reads; None where no policy did, or the file is gone."""
    ordering = recipe.get("ordering")
    while isinstance(ordering, Mapping) and isinstance(ordering.get("of"), Mapping):
        ordering = ordering["of"]
    if not isinstance(ordering, Mapping) or ordering.get("name") != "file":
        return None
    try:
        saved = json.loads(Path(str(ordering["path"])).expanduser().read_text(encoding="utf-8"))
        policy = saved["provenance"]["policy"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if policy is None else str(policy)


def _model(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in recipe.items() if key not in _NOT_THE_MODEL}
    found["training"] = {key: value for key, value in recipe["training"].items() if key not in _NO_RESULT}
    return found
