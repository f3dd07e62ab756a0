"""One cell: a run that is trained, gone on with, or found finished; a base that reads in another order."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from reorder_core import UsageError, output_folder, write_json, written_aside
from reorder_core.evaluated import Evaluated, evaluated, evaluated_run
from reorder_core.opened import Opened
from reorder_core.recipe import Recipe
from reorder_core.running import run_recipe


@dataclass(frozen=True)
class Workshop:
    """Where cells are made. say: told what comes, and whether it is found finished. quiet: around what prints."""

    device: Any
    say: Callable[[bool], None]
    quiet: Callable[[], AbstractContextManager[Any]]

    def trained(self, recipe: Recipe, place: Path, weights_from: Path | None = None) -> Path:
        """The folder of the finished run of this recipe below `place`: as it is, gone on with, or trained now."""
        begun = _newest(place / recipe.name, recipe.fingerprint())
        finished = begun is not None and (begun / "result.json").is_file()
        self.say(finished)
        if begun is not None and finished:
            return begun
        with self.quiet():
            results = run_recipe(
                recipe,
                place,
                resume=begun is not None,
                device=self.device,
                weights_from=weights_from,
                closing=False,
            )
        return results[0].folder

    def read(self, base: Callable[[], Opened], order_N: Any, place: Path) -> Evaluated:
        """A trained base as it is, in this order; `place` keeps what was measured. base: opens it, where need be."""
        kept = _kept(place)
        self.say(kept is not None)
        if kept is not None:
            return kept
        found = evaluated(base(), order_N)
        _keep(found, place)
        return found


def result(folder: Path) -> Evaluated:
    """What a finished run came to."""
    return evaluated_run(folder)


def mark(folder: Path) -> str:
    """Eight hexadecimal digits of a finished run: of what it came to, and when."""
    return sha256((folder / "result.json").read_bytes()).hexdigest()[:8]


def _newest(place: Path, fingerprint: str) -> Path | None:
    """The newest run of this very recipe."""
    for folder in sorted(place.glob("*/"), reverse=True):
        try:
            found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if found == fingerprint:
            return folder
    return None


def _keep(found: Evaluated, place: Path) -> None:
    """`scores.npy`, and last `evaluated.json`, which says that it is whole."""
    with output_folder(place):
        with written_aside(place / "scores.npy") as aside:
            np.save(aside, found.score_S, allow_pickle=False)
        content = {
            "primary": found.primary,
            "score": found.score,
            "higher_is_better": found.higher_is_better,
            "metrics": dict(found.metrics),
            "permutation": found.order_N.tolist(),
        }
        write_json(place / "evaluated.json", content)


def _kept(place: Path) -> Evaluated | None:
    path = place / "evaluated.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Evaluated(
            metrics=content["metrics"],
            score_S=np.load(place / "scores.npy", allow_pickle=False),
            primary=content["primary"],
            score=content["score"],
            higher_is_better=content["higher_is_better"],
            order_N=np.asarray(content["permutation"], dtype=np.int64),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{place} cannot be read ({error}): remove it, and it is measured again") from error
