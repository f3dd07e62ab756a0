"""A recipe: what is put together in a run. YAML -> frozen, validated `Recipe`; every error is `path:line: key: advice`.

Free of torch and numpy, so that `reorder check` is quick.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from reorder_core.catalogue import Catalogue
from reorder_core.recipe_checks import (
    control_complaints,
    data_facts,
    grid_of,
    order_complaints,
    ordering_complaints,
    steps_in_epoch,
    training_complaints,
)
from reorder_core.recipe_parts import Part, PartReader, with_article
from reorder_core.recipe_sections import HeadSection, PatchSection, PositionsSection, TrainingSection
from reorder_core.recipe_settings import plain, read_settings, unknown_key
from reorder_core.recipe_source import Complaint, RecipeError, Source, apply_overrides, read_source
from reorder_core.recipe_yaml import write_value, write_yaml
from reorder_core.settings import RunFacts, Settings

__all__ = ["KEYS", "Part", "Recipe", "RecipeError", "TrainingSection", "load_recipe", "recipe_from_mapping"]

S = TypeVar("S", bound=Settings)
Asked = Collection[str] | None

#: The keys of a recipe, in their order, with their meaning.
KEYS: Mapping[str, str] = {
    "name": "the run's name and folder",
    "seed": "the seed of everything random in the run",
    "data": "the data set",
    "patch": "how an image is cut",
    "positions": "what tells the model where a patch stood",
    "ordering": "the fixed order; with a policy, the order it starts from",
    "backbone": "the model that reads the patches",
    "policy": "what learns an order; left out, or null, for a fixed order",
    "task": "what the model is trained to do",
    "controls": "orders and negative controls that are trained side by side",
    "training": "how long, how much at a time, and with what",
}
#: Keys that name a component, and its kind.
PARTS: Mapping[str, str] = {
    "data": "dataset",
    "ordering": "ordering",
    "backbone": "backbone",
    "policy": "policy",
    "task": "task",
}
SECTIONS: Mapping[str, type[Settings]] = {
    "patch": PatchSection,
    "positions": PositionsSection,
    "training": TrainingSection,
}
_NO_RESULT = ("workers", "log_every", "checkpoint")  # of `training`: they change no weight and no metric


@dataclass(frozen=True)
class Recipe:
    """Everything that a run is made of, checked. Two recipes are equal when they resolve to the same.

    ordering: the one, or the first; further_orderings: what a backbone that wants several orders reads besides.
    """

    name: str
    seed: int
    data: Part
    patch: PatchSection
    positions: PositionsSection
    ordering: Part
    backbone: Part
    policy: Part | None
    task: Part
    controls: tuple[Part, ...]
    training: TrainingSection
    facts: RunFacts
    further_orderings: tuple[Part, ...] = ()
    path: Path | None = field(default=None, compare=False)
    catalogue: Catalogue = field(default_factory=Catalogue.load, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimiser steps in an epoch of one process, where the data set says how many images it has."""
        return steps_in_epoch(self.training, self.facts.data)

    def resolved(self) -> dict[str, Any]:
        """The complete recipe with every default, as plain JSON and YAML values; `recipe_from_mapping` reads it."""
        found: dict[str, Any] = {}
        for key in KEYS:
            value = getattr(self, key)
            if key == "controls":
                found[key] = [part.resolved() for part in value]
            elif key == "ordering" and self.further_orderings:
                found[key] = [part.resolved() for part in (value, *self.further_orderings)]
            else:
                found[key] = value.resolved() if isinstance(value, Part) else plain(value)
        return found

    def to_yaml(self) -> str:
        """`resolved()` as YAML, which `load_recipe` reads."""
        return write_yaml(self.resolved())

    def fingerprint(self) -> str:
        """sha256 over everything that determines the result: not the name, not the controls, not where it is saved."""
        found = self.resolved()
        for key in ("name", "controls"):
            del found[key]
        for key in _NO_RESULT:
            del found["training"][key]
        return sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    def with_overrides(self, overrides: Sequence[str] | Mapping[str, Any]) -> Recipe:
        """The same recipe with other values: `["policy.temperature=0.5"]`, or `{"policy.temperature": 0.5}`.

        Raises `RecipeError` with the override in each line.
        """
        source = Source(str(self.path or self.name), data=self.resolved())
        apply_overrides(source, overrides)
        return _read(source, self.path, self.catalogue)


def load_recipe(
    path: Path | str, overrides: Sequence[str] = (), catalogue: Catalogue | None = None, asked: Asked = None
) -> Recipe:
    """Read and check a recipe's file. Raises `RecipeError` with all of its errors, a line each.

    asked: the keys whose components are asked for problems in this run (`data`, `backbone`, …); None: all of them.
    """
    source = read_source(Path(path))
    apply_overrides(source, overrides)
    return _read(source, Path(path), catalogue or Catalogue.load(), asked)


def recipe_from_mapping(
    mapping: Mapping[str, Any],
    path: Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    catalogue: Catalogue | None = None,
) -> Recipe:
    """Read and check a recipe that is already plain values; `path` is what errors call it."""
    source = Source(str(path) if path else str(mapping.get("name", "recipe")), data=deepcopy(dict(mapping)))
    apply_overrides(source, overrides)
    return _read(source, path, catalogue or Catalogue.load())


def _read(source: Source, path: Path | None, catalogue: Catalogue, asked: Asked = None) -> Recipe:
    reader = _Reader(source, catalogue, asked)
    recipe = reader.recipe(path)
    if recipe is None or reader.complaints or source.early:
        raise RecipeError(source.lines(reader.complaints))
    return recipe


class _Reader:
    """Reads all parts and sections before it gives up, so that all errors come at once."""

    def __init__(self, source: Source, catalogue: Catalogue, asked: Asked = None) -> None:
        self.source = source
        self.catalogue = catalogue
        self.asked = asked
        self.complaints: list[Complaint] = []
        self.parts = PartReader(source, catalogue, self.complaints)

    def recipe(self, path: Path | None) -> Recipe | None:
        data = self.source.data
        self._keys()
        head = self._head()
        further = self._further_orderings()
        named = {key: self._part(key, kind) for key, kind in PARTS.items()}
        patch = self._section("patch", PatchSection)
        positions = self._section("positions", PositionsSection)
        training = self._section("training", TrainingSection)
        controls = self._controls(data.get("controls"))
        facts = self._facts(named, patch, positions, training, controls)
        self._more_problems(further, facts)
        if named["backbone"] is not None:
            self.complaints.extend(ordering_complaints(named["backbone"].settings, 1 + len(further)))
        self.complaints.extend(order_complaints(named["policy"], named["backbone"], self.catalogue))
        if self.complaints or not (head and patch and positions and training and facts):
            return None
        return Recipe(
            name=head.name,
            seed=head.seed,
            patch=patch,
            positions=positions,
            training=training,
            controls=controls,
            facts=facts,
            further_orderings=further,
            path=path,
            catalogue=self.catalogue,
            **named,  # type: ignore[arg-type]
        )

    def _keys(self) -> None:
        for key in self.source.data:
            if key not in KEYS:
                self.complaints.append(Complaint((key,), unknown_key(key, list(KEYS), "key")))

    def _head(self) -> HeadSection | None:
        given = {key: self.source.data[key] for key in HeadSection.model_fields if key in self.source.data}
        head, wrong = read_settings(HeadSection, given, (), self.source.text)
        self.complaints.extend(wrong)
        return head

    def _part(self, key: str, kind: str) -> Part | None:
        value = self.source.data.get(key)
        if key == "ordering" and isinstance(value, list) and value:
            return self.parts.part(kind, value[0], (key, 0))
        if value is None:
            if key != "policy":
                here = key in self.source.data
                message = f"name {with_article(kind)}"
                message = f"{message}, as {{name: …}}" if here else f"this is needed, and missing: {message}"
                self.complaints.append(Complaint((key,), message))
            return None
        return self.parts.part(kind, value, (key,))

    def _further_orderings(self) -> tuple[Part, ...]:
        """All but the first of a list of orderings, for a backbone that reads several at once."""
        value = self.source.data.get("ordering")
        if not isinstance(value, list):
            return ()
        found = [self.parts.part("ordering", each, ("ordering", place)) for place, each in enumerate(value) if place]
        return tuple(part for part in found if part is not None)

    def _section(self, key: str, model: type[S]) -> S | None:
        value = self.source.data.get(key, {} if key == "positions" else None)
        if not isinstance(value, Mapping):
            here = key in self.source.data
            wanted = f"must be a mapping, as {{{next(iter(model.model_fields))}: …}}, not {write_value(value)}"
            self.complaints.append(Complaint((key,), wanted if here else "this is needed, and missing: add it"))
            return None
        section, wrong = read_settings(model, value, (key,), self.source.text)
        self.complaints.extend(wrong)
        return section

    def _controls(self, value: Any) -> tuple[Part, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            message = f"must be a list, as [row_major, hilbert], not {write_value(value)}"
            self.complaints.append(Complaint(("controls",), message))
            return ()
        found = [self.parts.control(each, ("controls", number)) for number, each in enumerate(value)]
        controls = tuple(part for part in found if part is not None)
        if len(controls) == len(found):
            self.complaints.extend(control_complaints(controls))
        return controls

    def _facts(
        self,
        named: Mapping[str, Part | None],
        patch: PatchSection | None,
        positions: PositionsSection | None,
        training: TrainingSection | None,
        controls: Sequence[Part],
    ) -> RunFacts | None:
        """Everything that needs more than one part: as much of it as the right parts allow."""
        data = named["data"]
        about = self._sound(data_facts(data)) if data else None
        grid = self._sound(grid_of(about, patch.size)) if about and patch else None
        if training is not None:
            policy = self.source.data.get("policy") is not None
            self.complaints.extend(training_complaints(training, about, policy))
        if not (about and grid and patch and positions and training):
            return None
        facts = RunFacts(about, grid, patch.size, training.batch_size, positions.kind, training)
        for key, part in named.items():
            first = key == "ordering" and isinstance(self.source.data.get(key), list)
            self._problems(part, (key, 0) if first else (key,), facts)
        for number, part in enumerate(controls):
            self._problems(part, ("controls", number), facts)
        return facts

    def _more_problems(self, further: Sequence[Part], facts: RunFacts | None) -> None:
        if facts is not None:
            for place, part in enumerate(further, start=1):
                self._problems(part, ("ordering", place), facts)

    def _problems(self, part: Part | None, at: tuple[str | int, ...], facts: RunFacts) -> None:
        if part is not None and (self.asked is None or at[0] in self.asked):
            self.complaints.extend(Complaint((*at, *path), message) for path, message in part.problems(facts))

    def _sound(self, found: Any) -> Any:
        """What was found, or None where it is a complaint, which is kept."""
        if isinstance(found, Complaint):
            self.complaints.append(found)
            return None
        return found
