"""Entry points -> plugins. A plugin that fails is a record with its reason, never a crash.

Every plugin, the core's own included, is a module named by an entry point of the group `reorder`. It is imported,
its hooks are checked, and its answers (plain data) are read and checked. Nothing that they name is imported here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from time import perf_counter
from typing import Any, Literal

import pluggy

from reorder_core import hookspecs
from reorder_core.component import Command, Component, Kind
from reorder_core.errors import did_you_mean

GROUP = "reorder"
CORE = "reorder_core.plugin"
SWITCH = "REORDER_DISABLE_PLUGINS"
HEAVY = ("numpy", "timm", "torch", "torchvision")
RESERVED = ("plugins", "recipes")
"""Words that `reorder list` takes for itself: no kind may be called so."""

_IMPORT_STRING = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME = re.compile(r"[^\s:,={}\[\]]+")


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """What became of one plugin.

    name: of its entry point. distribution, version: who provides it. module: what the entry point names.
    state: `ok`; `broken`, and then nothing that it offers is used; or `off`, switched off and never imported.
    reason: why it is broken or off; a note (a heavy import, say) where it is ok, else empty.
    seconds: import and hooks together.
    """

    name: str
    distribution: str
    version: str
    module: str
    state: Literal["ok", "broken", "off"] = "ok"
    reason: str = ""
    seconds: float = 0.0
    components: tuple[Component, ...] = ()
    kinds: tuple[Kind, ...] = ()
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True)
class Discovered:
    """All plugins that are installed, the core first."""

    plugins: tuple[PluginRecord, ...]


class _Flaw(Exception):
    """Something in a plugin's answers that the reader should be told of in one line."""


def discover() -> Discovered:
    """Import every plugin of the entry-point group `reorder` and read what it offers.

    The environment variable `REORDER_DISABLE_PLUGINS` (names of plugins, separated by commas) switches plugins off.
    """
    off = {name.strip() for name in os.environ.get(SWITCH, "").split(",") if name.strip()}
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.value != CORE, point.name, _source(point)))
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    records = [_switched_off(point, off) or _load(point, manager) for point in points]
    return Discovered(tuple(_judge_together(records)))


def _source(point: EntryPoint) -> tuple[str, str]:
    """(distribution, version) that an entry point comes from."""
    return (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "")


def _record(point: EntryPoint, **fields: Any) -> PluginRecord:
    distribution, version = _source(point)
    return PluginRecord(point.name, distribution, version, point.value, **fields)


def _switched_off(point: EntryPoint, off: set[str]) -> PluginRecord | None:
    if point.name not in off or point.value == CORE:
        return None
    return _record(point, state="off", reason=f"switched off by {SWITCH}")


def _load(point: EntryPoint, manager: pluggy.PluginManager) -> PluginRecord:
    """Import one plugin and call its hooks; whatever it does wrong ends in its record."""
    started = perf_counter()
    before = set(sys.modules)
    key = f"{_source(point)[0]}:{point.name}"
    try:
        with redirect_stdout(sys.stderr):  # a plugin that prints must not spoil `--json`
            answers = _ask(point, key, manager)
    except (Exception, SystemExit) as error:
        if manager.has_plugin(key):
            manager.unregister(name=key)
        return _record(point, state="broken", reason=_reason(error), seconds=perf_counter() - started)
    heavy = [name for name in HEAVY if name in sys.modules and name not in before]
    note = f"imports {' and '.join(heavy)} when it is loaded: every command waits for that" if heavy else ""
    return _record(point, reason=note, seconds=perf_counter() - started, **answers)


def _ask(point: EntryPoint, key: str, manager: pluggy.PluginManager) -> dict[str, tuple[Any, ...]]:
    """The answers of one plugin, by the name of the hook."""
    plugin = point.load()
    manager.register(plugin, name=key)
    manager.check_pending()
    callers = manager.get_hookcallers(plugin) or ()
    if not callers:
        raise _Flaw("answers no hook: is @hookimpl missing above components()?")
    answers: dict[str, tuple[Any, ...]] = {}
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin_name == key:
                answers[caller.name] = _checked(caller.name, impl)
    return answers


_ANSWERS: dict[str, type[Component | Kind | Command]] = {"components": Component, "kinds": Kind, "commands": Command}


def _checked(hook: str, impl: pluggy.HookImpl) -> tuple[Any, ...]:
    """What a hook answered, each item of the right type, well formed, and named once."""
    if impl.wrapper or impl.hookwrapper:
        raise _Flaw(f"its {hook}() is a wrapper around other plugins' answers; answer with your own")
    answer = impl.function()
    if not isinstance(answer, Iterable):
        raise _Flaw(f"{hook}() must answer with a tuple of {_ANSWERS[hook].__name__}, not {answer!r}")
    items = tuple(answer)
    seen = set()
    for item in items:
        if not isinstance(item, Component | Kind | Command) or not isinstance(item, _ANSWERS[hook]):
            raise _Flaw(f"{hook}() must answer with {_ANSWERS[hook].__name__}s, not {item!r}")
        _well_formed(item)
        identity = (getattr(item, "kind", hook), item.name)
        if identity in seen:
            raise _Flaw(f"offers the {_word(item)} '{item.name}' twice")
        seen.add(identity)
    return items


def _word(item: Component | Kind | Command) -> str:
    return item.kind if isinstance(item, Component) else type(item).__name__.lower()


def _well_formed(item: Component | Kind | Command) -> None:
    strings = {"component": ("kind", "summary"), "kind": ("plural", "summary"), "command": ("help",)}
    what = type(item).__name__.lower()
    if not isinstance(item.name, str) or not _NAME.fullmatch(item.name):
        raise _Flaw(f"a {what}'s name must be one word, not {item.name!r}")
    for field in strings[what]:
        if not isinstance(getattr(item, field), str):
            raise _Flaw(f"the {field} of the {what} '{item.name}' must be text, not {getattr(item, field)!r}")
    for field in ("target", "settings", "protocol", "contract", "template"):
        value = getattr(item, field, None)
        optional = field in ("settings", "contract", "template") or not hasattr(item, field)
        if not (value is None and optional) and not (isinstance(value, str) and _IMPORT_STRING.fullmatch(value)):
            raise _Flaw(f"the {field} of '{item.name}' must be written as 'module:attribute', not {value!r}")


def _reason(error: BaseException) -> str:
    """One line: what went wrong, in words where they are our own."""
    if isinstance(error, _Flaw):
        return str(error)
    if isinstance(error, SystemExit):
        return f"left the program when it was loaded (SystemExit: {error.code!r})"
    text = " ".join(str(error).split())
    if isinstance(error, pluggy.PluginValidationError):
        hook = re.search(r"unknown hook '([^']+)'", text)
        if hook:
            near = did_you_mean(hook[1], list(_ANSWERS))
            return f"answers the hook '{hook[1]}', which does not exist{near or '; see docs/hooks.md'}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _judge_together(records: list[PluginRecord]) -> list[PluginRecord]:
    """Break the plugins that cannot stand beside the others: a kind or command taken already, a kind of nobody.

    A broken plugin takes its kinds away with it, so this repeats until nothing changes.
    """
    while True:
        judged = list(_judge_once(records))
        if judged == records:
            return judged
        records = judged


def _judge_once(records: list[PluginRecord]) -> Iterator[PluginRecord]:
    taken: dict[tuple[str, str], PluginRecord] = {}
    declared = [kind.name for record in records if record.state == "ok" for kind in record.kinds]
    for record in records:
        if record.state != "ok":
            yield record
            continue
        try:
            _fits(record, taken, declared)
        except _Flaw as flaw:
            record = replace(record, state="broken", reason=str(flaw))
        yield record


def _fits(record: PluginRecord, taken: dict[tuple[str, str], PluginRecord], declared: list[str]) -> None:
    claims = [("command", command.name) for command in record.commands]
    for kind in record.kinds:
        if kind.name in RESERVED or kind.plural in RESERVED:
            raise _Flaw(f"the kind '{kind.name}' ({kind.plural}) takes a word that `reorder list` needs")
        if kind.key is not None and record.module != CORE:
            raise _Flaw(
                f"the kind '{kind.name}' wants the key '{kind.key}' of a recipe, whose keys are fixed: "
                f'leave key out, and name its components in settings, as Ref["{kind.name}"]'
            )
        claims += [("kind", word) for word in {kind.name, kind.plural}]
    for what, name in claims:
        if (what, name) in taken:
            other = taken[what, name]
            raise _Flaw(f"offers the {what} '{name}', which {other.distribution} ({other.name}) offers already")
    for component in record.components:
        if component.kind not in declared:
            near = did_you_mean(component.kind, declared) or f": the kinds are {', '.join(declared)}"
            raise _Flaw(f"'{component.name}' is of the kind '{component.kind}', which no plugin declares{near}")
    taken.update(dict.fromkeys(claims, record))
