"""The components that a recipe names, found and checked with everything that their settings refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reorder_core.errors import ReorderError, did_you_mean
from reorder_core.recipe_settings import plain, read_settings, references, unknown_key
from reorder_core.recipe_source import Complaint, Source
from reorder_core.recipe_yaml import KeyPath, write_value
from reorder_core.settings import ComponentRef, RunFacts, Settings

if TYPE_CHECKING:
    from reorder_core.catalogue import Catalogue, Entry

#: What a control may be called (`as: …`); empty where the recipe does not say.
_LABEL = re.compile(r"[A-Za-z0-9_-]*")


def with_article(kind: str) -> str:
    """`a backbone`, `an ordering`"""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


@dataclass(frozen=True, slots=True)
class Part:
    """A component of a recipe.

    ref: its kind, name and complete settings as plain values, as `Catalogue.build` takes it. settings: the same as an
    object of its settings class (None where it takes none). entry: where it comes from. nested: the components that
    its settings refer to, by key path. label: what a control is called in its run, where the recipe says `as: …`.
    """

    ref: ComponentRef
    settings: Settings | None
    entry: Entry
    nested: tuple[tuple[KeyPath, Part], ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.ref.name

    def resolved(self) -> dict[str, Any]:
        """`{name: …}` with all settings, as a recipe has it."""
        label = {"as": self.label} if self.label else {}
        return {"name": self.ref.name, **label, **plain(self.ref.settings)}

    def problems(self, facts: RunFacts) -> Iterator[tuple[KeyPath, str]]:
        """What its settings and those of its nested parts have to say about this run: (key path, advice)."""
        if self.settings is not None:
            try:
                for problem in self.settings.problems(facts):
                    yield tuple(problem.key.split(".")) if problem.key else (), problem.message
            except ReorderError as error:
                yield (), str(error)
            except Exception as error:
                yield (), f"the check of {self.entry} failed: {type(error).__name__}: {error}"
        for path, part in self.nested:
            there = () if self.settings is None else self.settings.facts_of(str(path[0]), facts)
            found = (((*path, *inner), said) for each in there for inner, said in part.problems(each))
            yield from dict.fromkeys(found)


class PartReader:
    """Reads parts out of a source; what is wrong lands in `complaints`."""

    def __init__(self, source: Source, catalogue: Catalogue, complaints: list[Complaint]) -> None:
        self.source = source
        self.catalogue = catalogue
        self.complaints = complaints

    def part(self, kind: str, value: Any, at: KeyPath) -> Part | None:
        """The part that `value` names, as a word or as `{name: …, settings}`; None where it is wrong."""
        if isinstance(value, str):
            return self._complete(ComponentRef(kind, value), at, (*at,))
        text = self.source.text.get((*at, "name"))
        name = value.get("name") if isinstance(value, Mapping) else None
        name = text if text is not None and name is not None else name
        if not isinstance(name, str):
            there = f", not {write_value(value)}" if not isinstance(value, Mapping) else ""
            known = ", ".join(entry.component.name for entry in self.catalogue.entries(kind)) or "none is installed"
            message = f"name {with_article(kind)}, as {{name: …}}{there} (there is: {known})"
            self.complaints.append(Complaint(at, message))
            return None
        settings = {key: item for key, item in value.items() if key != "name"}
        return self._complete(ComponentRef(kind, name, settings), at, (*at, "name"))

    def control(self, value: Any, at: KeyPath) -> Part | None:
        """A control: a component of kind `control`, or an ordering that the run is trained with."""
        name = value if isinstance(value, str) else value.get("name") if isinstance(value, Mapping) else None
        if not isinstance(name, str):
            message = f"name a control or an ordering, as row_major or {{name: …}}, not {write_value(value)}"
            self.complaints.append(Complaint(at, message))
            return None
        names = {
            kind: [entry.component.name for entry in self.catalogue.entries(kind)] for kind in ("control", "ordering")
        }
        label = value.get("as", "") if isinstance(value, Mapping) else ""
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            message = f"a name of letters, digits, '_', '-', not {write_value(label)}: it becomes a folder"
            self.complaints.append(Complaint((*at, "as"), message))
            return None
        if isinstance(value, Mapping):
            value = {key: item for key, item in value.items() if key != "as"}
        for kind, known in names.items():
            if name in known:
                part = self.part(kind, value, at)
                return None if part is None else replace(part, label=label)
        every = sorted({*names["control"], *names["ordering"]})
        near = did_you_mean(name, every) or f": there is {', '.join(every)}"
        self.complaints.append(Complaint(at, f"there is no control or ordering called '{name}'{near}"))
        return None

    def _complete(self, ref: ComponentRef, at: KeyPath, name_at: KeyPath) -> Part | None:
        try:
            entry = self.catalogue.find(ref.kind, ref.name)
            model = self.catalogue.settings_class(entry)
        except ReorderError as error:
            self.complaints.append(Complaint(name_at, str(error)))
            return None
        if model is None:
            for key in ref.settings:
                self.complaints.append(
                    Complaint((*at, key), f"the {ref.kind} '{ref.name}' takes no settings: remove it")
                )
            return Part(ComponentRef(ref.kind, ref.name), None, entry) if not ref.settings else None
        if "name" in model.model_fields:
            self.complaints.append(Complaint(at, unknown_key("name", (), f"setting may exist in {entry}")))
            return None
        settings, wrong = read_settings(model, ref.settings, at, self.source.text)
        self.complaints.extend(wrong)
        return None if settings is None else self._with_nested(ref, settings, entry, at)

    def _with_nested(self, ref: ComponentRef, settings: Settings, entry: Entry, at: KeyPath) -> Part | None:
        """Complete the components that the settings refer to, and put them back complete."""
        nested: list[tuple[KeyPath, Part]] = []
        whole = True
        for path, inner in references(settings):
            here = (*at, *path)
            found = self._complete(inner, here, (*here, "name") if (*here, "name") in self.source.origin else here)
            whole = whole and found is not None
            if found is not None:
                nested.append((path, found))
        if not whole:
            return None
        values = plain(settings, {path: part.resolved() for path, part in nested})
        if nested:
            again, wrong = read_settings(type(settings), values, at, {})
            self.complaints.extend(wrong)
            if again is None:
                return None
            settings = again
        return Part(ComponentRef(ref.kind, ref.name, values), settings, entry, tuple(nested))
