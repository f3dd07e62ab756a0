"""(kind, name) -> component. Explains names that are unknown, offered twice, or offered by a broken plugin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from reorder_core.component import Command, Component, Kind
from reorder_core.discovery import SWITCH, PluginRecord, discover
from reorder_core.errors import ReorderError, UsageError, did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError

    from reorder_core.interfaces.context import Context
    from reorder_core.settings import ComponentRef, Settings

State = Literal["ok", "broken", "conflict"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A component and where it comes from.

    state: `ok`; `broken` (its plugin is); `conflict` (another plugin offers the same kind and name).
    reason: why, where it is not ok. seconds: what loading its plugin took.
    """

    component: Component
    plugin: str
    distribution: str
    version: str
    state: State = "ok"
    reason: str = ""
    seconds: float = 0.0

    @property
    def source(self) -> str:
        """`plugin (distribution version)`, as messages name it."""
        return f"{self.plugin} ({self.distribution} {self.version})"

    def __str__(self) -> str:
        return f"the {self.component.kind} '{self.component.name}' of {self.source}"


@dataclass(frozen=True, slots=True)
class OfferedCommand:
    """A command of the program and the plugin that offers it."""

    command: Command
    plugin: str
    distribution: str


class Catalogue:
    """All kinds, components and commands of the plugins that are installed."""

    def __init__(self, plugins: Iterable[PluginRecord]) -> None:
        self.plugins = tuple(plugins)
        good = [record for record in self.plugins if record.state == "ok"]
        self.kinds: dict[str, Kind] = {kind.name: kind for record in good for kind in record.kinds}
        self.commands: dict[str, OfferedCommand] = {
            command.name: OfferedCommand(command, record.name, record.distribution)
            for record in good
            for command in record.commands
        }
        self._entries = self._sorted(_mark_conflicts(_entries(self.plugins)))

    @staticmethod
    @cache
    def load() -> Catalogue:
        """The catalogue of this process; `Catalogue.load.cache_clear()` makes the next call look again."""
        return Catalogue(discover().plugins)

    def _sorted(self, entries: Iterable[Entry]) -> list[Entry]:
        place = {kind: number for number, kind in enumerate(self.kinds)}
        return sorted(
            entries, key=lambda entry: (place.get(entry.component.kind, len(place)), entry.component.name, entry.plugin)
        )

    def entries(self, kind: str | None = None) -> list[Entry]:
        """All entries, of one kind where it is given, whatever their state."""
        return [entry for entry in self._entries if kind is None or entry.component.kind == kind]

    def kind(self, word: str) -> Kind:
        """The kind called `word`, singular or plural. Raises `UsageError` with a suggestion."""
        for kind in self.kinds.values():
            if word in (kind.name, kind.plural):
                return kind
        near = did_you_mean(word, list(self.kinds)) or f": the kinds are {', '.join(self.kinds)}"
        raise UsageError(f"there is no kind of component called '{word}'{near}")

    def find(self, kind: str, name: str) -> Entry:
        """The component to use. Raises `UsageError` where it is unknown, in conflict or broken."""
        self.kind(kind)
        found = [entry for entry in self.entries(kind) if entry.component.name == name]
        if len(found) > 1 or (found and found[0].state == "broken"):
            found = [entry for entry in found if entry.state != "broken"] or found[:1]
        if not found:
            raise UsageError(self._unknown(kind, name))
        entry = found[0]
        if entry.state == "broken":
            raise UsageError(f"the {kind} '{name}' cannot be used: its plugin {entry.source} is broken: {entry.reason}")
        if entry.state == "conflict":
            raise UsageError(f"the {kind} '{name}' is {entry.reason}")
        return entry

    def _unknown(self, kind: str, name: str) -> str:
        names = sorted({entry.component.name for entry in self.entries(kind) if entry.state == "ok"})
        near = did_you_mean(name, names) or (f": there is {', '.join(names)}" if names else ": none is installed")
        broken = [record.name for record in self.plugins if record.state == "broken"]
        hint = f" (broken plugins: {', '.join(broken)}; see `reorder list plugins`)" if broken else ""
        return f"there is no {kind} called '{name}'{near}{hint}"

    def settings_class(self, entry: Entry) -> type[Settings] | None:
        """The settings class of a component (imports its settings module only), or None where it takes none."""
        if entry.component.settings is None:
            return None
        from reorder_core.settings import Settings

        found = import_string(entry.component.settings, f"the settings of {entry}")
        if not (isinstance(found, type) and issubclass(found, Settings)):
            raise UsageError(f"the settings of {entry} are no reorder_core.Settings: {entry.component.settings}")
        return found

    def settings(self, entry: Entry, values: Mapping[str, Any]) -> Settings | None:
        """The settings of a component, checked. Raises `UsageError` with every wrong key in its sentence."""
        chosen = self.settings_class(entry)
        if chosen is None:
            if values:
                raise UsageError(f"{entry} takes no settings, but was given {', '.join(map(str, values))}")
            return None
        from pydantic import ValidationError

        try:
            return chosen.model_validate(dict(values))
        except ValidationError as error:
            raise UsageError(f"{entry}: {_sentence(error, list(chosen.model_fields))}") from error
        except ReorderError:
            raise
        except Exception as error:
            raise UsageError(f"the settings of {entry} failed: {type(error).__name__}: {error}") from error

    def target(self, entry: Entry) -> Any:
        """Import what builds the component. Raises `UsageError` naming component and distribution."""
        found = import_string(entry.component.target, str(entry))
        if not callable(found):
            raise UsageError(f"{entry} cannot be built: {entry.component.target} is not callable")
        return found

    def build(self, ref: ComponentRef, context: Context) -> Any:
        """Check the settings, import the target and call `target(settings, context)`.

        Raises `UsageError` naming component and distribution for whatever fails that is no `ReorderError` already.
        """
        entry = self.find(ref.kind, ref.name)
        settings = self.settings(entry, ref.settings)
        target = self.target(entry)
        try:
            return target(settings, context)
        except ReorderError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{entry} cannot be built: {_one_line(error)}") from error


def import_string(path: str, what: str) -> Any:
    """The attribute that `module:attribute` names. Raises `UsageError` that says for what it was needed."""
    module, _, attribute = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ReorderError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{what} cannot be imported from {path}: {_one_line(error)}") from error
    return found


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _entries(plugins: Iterable[PluginRecord]) -> list[Entry]:
    return [
        Entry(
            component,
            record.name,
            record.distribution,
            record.version,
            "ok" if record.state == "ok" else "broken",
            record.reason,
            record.seconds,
        )
        for record in plugins
        for component in record.components
    ]


def _mark_conflicts(entries: list[Entry]) -> list[Entry]:
    """Entries with the same kind and name, of several plugins that work, are in conflict: none of them wins."""
    rivals: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.state == "ok":
            rivals[entry.component.kind, entry.component.name].append(entry)
    marked = []
    for entry in entries:
        group = rivals[entry.component.kind, entry.component.name] if entry.state == "ok" else []
        if len(group) > 1:
            everyone = " and by ".join(rival.source for rival in group)
            last = group[-1].plugin
            reason = f"offered by {everyone}: uninstall one of them, or switch its plugin off ({SWITCH}={last})"
            entry = replace(entry, state="conflict", reason=reason)
        marked.append(entry)
    return marked


def _sentence(error: ValidationError, known: list[str]) -> str:
    """All problems of a pydantic error in one sentence, with a suggestion for a misspelt key."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = did_you_mean(key, known) or (f": it has {', '.join(known)}" if known else "")
            parts.append(f"no such setting '{key}'{near}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if problem["type"] == "missing" else f", not {problem['input']!r}"
            parts.append(f"{key}: {message[:1].lower()}{message[1:]}{shown}" if key else message)
    return "; ".join(parts)
