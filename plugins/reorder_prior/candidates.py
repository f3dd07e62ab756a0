"""The orderings that take part, each with its order on the grid.

N patches, B images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import ComponentRef, Context, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.errors import ReorderError, UnsupportedGrid
from reorder_core.permutation import validate
from reorder_core.recipe_yaml import read_yaml, write_value

#: Images [B, channels, height, width] that orderings which learn from data are fitted to, made when they are needed.
FitImages = Callable[[], NDArray[np.float32]]


CHANCE = "random"
"""the ordering that says what an order drawn by chance gives"""

CHANCE_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Candidate:
    """An ordering's label and its order, int64 [N]. by_chance: there to be compared with, not to be chosen."""

    label: str
    order_N: NDArray[np.int64]
    by_chance: bool = False


def parse_orderings(text: str) -> list[ComponentRef]:
    """`a,b,{name: spiral, inward: false}` as references. Raises `UsageError` for what is no ordering of a recipe."""
    return [parse_component("ordering", item, text) for item in _items(text)]


def parse_component(kind: str, value: Any, text: str) -> ComponentRef:
    """A component written as in a recipe: a name, or a mapping with `name`. Raises `UsageError`."""
    if isinstance(value, str) and value:
        return ComponentRef(kind, value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return ComponentRef(kind, value["name"], {key: item for key, item in value.items() if key != "name"})
    raise UsageError(f"'{text}' names no {kind}: write NAME, or '{{name: NAME, setting: value}}'")


def parse_one(kind: str, text: str) -> ComponentRef:
    """One component, as an option of the command line has it."""
    document = read_yaml(text)
    if document.problems:
        raise UsageError(f"'{text}' names no {kind}: {document.problems[0][2]}")
    return parse_component(kind, document.value if isinstance(document.value, dict) else text.strip(), text)


def _items(text: str) -> list[Any]:
    document = read_yaml(f"[{text}]")
    if document.problems or not document.value:
        raise UsageError(f"'{text}' names no orderings: write a,b or 'a,{{name: b, setting: value}}'")
    return list(document.value)


def label_of(ref: ComponentRef) -> str:
    """`hilbert`, or `spiral:inward=false`: name and settings on one line."""
    settings = ",".join(f"{key}={write_value(_plain(value))}" for key, value in ref.settings.items())
    return f"{ref.name}:{settings}" if settings else ref.name


def _plain(value: Any) -> Any:
    return {"name": value.name, **value.settings} if isinstance(value, ComponentRef) else value


def named_candidates(
    refs: Sequence[ComponentRef], catalogue: Catalogue, context: Context, fit_images: FitImages
) -> list[Candidate]:
    """The orders of these orderings, fitted where they learn from data.

    Raises `UsageError` for a name that is not installed, is named twice, or has no order on this grid.
    """
    found: list[Candidate] = []
    for ref in refs:
        label = label_of(ref)
        if any(label == each.label for each in found):
            raise UsageError(f"the ordering '{label}' is named twice: name it once")
        ordering = catalogue.build(ref, context)
        if hasattr(ordering, "fit"):
            ordering.fit(fit_images(), context.grid, context.generator)
        try:
            found.append(Candidate(label, _order(ordering, context, label)))
        except UnsupportedGrid as error:
            raise UsageError(f"the ordering '{label}' has no order on a grid of {context.grid}: {error}") from error
    return found


def default_candidates(catalogue: Catalogue, context: Context) -> tuple[list[Candidate], list[str]]:
    """All orderings that need no settings, do not learn from data and are not drawn by chance, each order once; and
    what was left out, and why: an ordering that this grid does not have, and one that reads as another one does.
    """
    found: list[Candidate] = []
    notes: list[str] = []
    for entry in catalogue.entries("ordering"):
        name = entry.component.name
        if entry.state != "ok" or name == CHANCE or _needs_settings(catalogue, name):
            continue
        if hasattr(catalogue.target(entry), "fit"):
            continue
        try:
            order_N = _order(catalogue.build(ComponentRef("ordering", name), context), context, name)
        except ReorderError as error:
            notes.append(f"{name}: left out, {error}")
            continue
        twin = next((each.label for each in found if np.array_equal(each.order_N, order_N)), None)
        if twin is None:
            found.append(Candidate(name, order_N))
        else:
            notes.append(f"{name}: left out, it reads a grid of {context.grid} as {twin} does")
    if not found:
        raise UsageError(
            f"no installed ordering has an order on a grid of {context.grid}: name some, or change the grid"
        )
    return found, notes


def chance_candidates(
    catalogue: Catalogue, context: Context, beside: Sequence[Candidate] = (), seeds: Sequence[int] = CHANCE_SEEDS
) -> list[Candidate]:
    """Orders drawn by chance, one for each seed, but for those that a small grid makes equal to one that is there.

    None where no ordering `random` is installed.
    """
    if not any(entry.component.name == CHANCE and entry.state == "ok" for entry in catalogue.entries("ordering")):
        return []
    found: list[Candidate] = []
    for seed in seeds:
        ref = ComponentRef("ordering", CHANCE, {"seed": seed} if seed else {})
        order_N = _order(catalogue.build(ref, context), context, label_of(ref))
        if not any(np.array_equal(each.order_N, order_N) for each in (*beside, *found)):
            found.append(Candidate(label_of(ref), order_N, by_chance=True))
    return found


def _needs_settings(catalogue: Catalogue, name: str) -> bool:
    model = catalogue.settings_class(catalogue.find("ordering", name))
    return model is not None and any(field.is_required() for field in model.model_fields.values())


def _order(ordering: Any, context: Context, label: str) -> NDArray[np.int64]:
    order_N: NDArray[np.int64] = validate(
        ordering.permutation(context.grid), context.grid.size, f"the order of '{label}'"
    )
    return order_N
