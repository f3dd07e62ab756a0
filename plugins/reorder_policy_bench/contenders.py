"""Who takes part: every installed policy that can be built without settings, or those that the command line names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reorder_core import UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.recipe_yaml import read_yaml, write_value
from reorder_core.settings import ComponentRef

#: Settings that say how many orders one batch is read in, and how fast the policy learns, by the names in use.
ORDERS, RATE = "orders", "learning_rate"
ALL = "all"
_SPEC = re.compile(r"(?:(?P<label>[^=:]+)=)?(?P<name>[^=:]+)(?::(?P<settings>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Contender:
    """A policy with its settings, under a label.

    named: asked for on the command line, so that it must be able to run.
    swept: settings that the bench put in; the number of orders falls away where the policy refuses it.
    """

    label: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    swept: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False

    @property
    def ref(self) -> ComponentRef:
        return ComponentRef("policy", self.name, {**self.settings, **self.swept})

    @property
    def plain(self) -> Contender:
        """The same without its swept number of orders, which it may refuse."""
        return replace(self, swept={key: value for key, value in self.swept.items() if key != ORDERS})


@dataclass(frozen=True)
class LeftOut:
    """A policy that cannot take part, and why."""

    name: str
    reason: str


def taking_part(policies: Sequence[str], catalogue: Catalogue) -> tuple[list[Contender], list[LeftOut]]:
    """What `--policy` names, where `all` is every installed policy, as it is where nothing is named.

    Raises `UsageError` for what is not installed, or whose settings are wrong.
    """
    named: list[Contender] = []
    left: list[LeftOut] = []
    for text in policies or (ALL,):
        if text.strip() == ALL:
            everyone, left = installed(catalogue)
            named += everyone
        else:
            named.append(parse(text, catalogue))
    unique: dict[str, Contender] = {}
    for contender in named:
        known = unique.setdefault(contender.label, contender)
        if known.ref != contender.ref:
            raise UsageError(
                f"two policies are called '{contender.label}': give one of them another label, X={known.name}"
            )
    return [*unique.values()], left


def installed(catalogue: Catalogue) -> tuple[list[Contender], list[LeftOut]]:
    """Every policy of the catalogue with its default settings; those that need settings or are broken are left out."""
    taken: list[Contender] = []
    left: dict[str, LeftOut] = {}
    for entry in catalogue.entries("policy"):
        name = entry.component.name
        if entry.state != "ok":
            left[name] = LeftOut(name, entry.reason)
            continue
        try:
            model = catalogue.settings_class(entry)
        except UsageError as error:
            left[name] = LeftOut(name, str(error))
            continue
        fields = {} if model is None else model.model_fields
        needed = [key for key, value in fields.items() if value.is_required()]
        if needed:
            wanted = ",".join(f"{key}=…" for key in needed)
            left[name] = LeftOut(name, f"it needs settings: --policy '{name}:{wanted}'")
        else:
            taken.append(Contender(name, name))
    return taken, list(left.values())


def parse(text: str, catalogue: Catalogue) -> Contender:
    """`[LABEL=]NAME[:key=value,…]`, values as in a recipe. Raises `UsageError` with what is wrong."""
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--policy {text}: write NAME, NAME:key=value,key=value or LABEL=NAME:key=value")
    name = match["name"].strip()
    values = {}
    for part in _parts(match["settings"] or ""):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--policy {text}: '{part.strip()}' is no setting: write key=value")
        document = read_yaml(value)
        if document.problems:
            raise UsageError(f"--policy {text}: {key.strip()}: {document.problems[0][2]}")
        values[key.strip()] = document.value
    try:
        catalogue.settings(catalogue.find("policy", name), values)
    except UsageError as error:
        raise UsageError(f"--policy {text}: {error}") from error
    shown = ",".join(f"{key}={write_value(value)}" for key, value in values.items())
    return Contender((match["label"] or f"{name}{':' if shown else ''}{shown}").strip(), name, values, named=True)


def _parts(text: str) -> Iterator[str]:
    """Split at commas that stand outside of brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    if text[start:].strip():
        yield text[start:]


def swept(
    contenders: Sequence[Contender], catalogue: Catalogue, orders: Sequence[int], rates: Sequence[float]
) -> list[Contender]:
    """Each contender once for every number of orders and every learning rate, where it has such a setting free."""
    found: list[Contender] = []
    for contender in contenders:
        model = catalogue.settings_class(catalogue.find("policy", contender.name))
        free = {*(() if model is None else model.model_fields)} - {*contender.settings}
        for rate in rates if RATE in free and rates else (None,):
            for count in orders if ORDERS in free and orders else (None,):
                values = {ORDERS: count, RATE: rate}
                given = {key: value for key, value in values.items() if value is not None}
                label = contender.label if rate is None else f"{contender.label} lr={rate:g}"
                found.append(replace(contender, label=label, swept=given))
    return found
