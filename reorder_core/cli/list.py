"""`reorder list`: what is installed, in which state, and from where. Imports no torch, numpy, timm or torchvision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from reorder_core.catalogue import Catalogue, Entry
from reorder_core.cli.table import Row, write
from reorder_core.discovery import PluginRecord

RECIPES = Path("recipes")


def _words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Completions of WHAT."""
    words = ["plugins", *(kind.plural for kind in Catalogue.load().kinds.values()), "recipes"]
    return [word for word in words if word.startswith(incomplete)]


@click.command()
@click.argument("what", default="", metavar="[WHAT]", shell_complete=_words)
@click.option("--json", "as_json", is_flag=True, help="A JSON list of objects.")
@click.option("--plain", is_flag=True, help="Tab-separated, no header, never cut; the reason is last.")
@click.option("--verify", is_flag=True, help="Also import every settings class and target, and show what fails.")
def command(what: str, as_json: bool, plain: bool, verify: bool) -> None:
    """What is installed: plugins, components, recipes.

    WHAT is `plugins`, `recipes` or a kind of component, as `orderings` or `backbones`; without it, all components.
    """
    catalogue = Catalogue.load()
    if what in ("plugins", "plugin"):
        plugins = [_plugin(record, as_json) for record in catalogue.plugins]
        columns = ["name", "components", "distribution", "version", "state", "seconds"]
        write(plugins, columns, as_json=as_json, plain=plain, stretch="components", under="reason")
        return
    if what in ("recipes", "recipe"):
        recipes = _recipes()
        if not recipes:
            click.echo(f"no {RECIPES}/*.yaml in this folder", err=True)
        write(recipes, ["path", "name", "summary"], as_json=as_json, plain=plain, stretch="summary", under="reason")
        return
    entries = catalogue.entries(catalogue.kind(what).name if what else None)
    rows = [_component(entry, _verdict(catalogue, entry) if verify else "") for entry in entries]
    rows += [_lost(record) for record in catalogue.plugins if not what and record.state != "ok"]
    columns = ["kind", "name", "summary", "distribution", "version", "state", "seconds"]
    write(rows, columns, as_json=as_json, plain=plain, stretch="summary", under="reason")


def _component(entry: Entry, fault: str) -> Row:
    return {
        "kind": entry.component.kind,
        "name": entry.component.name,
        "summary": entry.component.summary,
        "plugin": entry.plugin,
        "distribution": entry.distribution,
        "version": entry.version,
        "state": "broken" if fault else entry.state,
        "seconds": entry.seconds,
        "reason": fault or entry.reason,
    }


def _lost(record: PluginRecord) -> Row:
    """The row of a plugin that offers nothing now, among the components of the others."""
    return {
        "kind": "plugin",
        "name": record.name,
        "summary": record.module,
        "plugin": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "state": record.state,
        "seconds": record.seconds,
        "reason": record.reason,
    }


def _plugin(record: PluginRecord, as_json: bool) -> Row:
    components = tuple(component.name for component in record.components)
    kinds = tuple(kind.name for kind in record.kinds)
    commands = tuple(offered.name for offered in record.commands)
    row: dict[str, Any] = {
        "name": record.name,
        "components": components,
        "distribution": record.distribution,
        "version": record.version,
        "module": record.module,
        "state": record.state,
        "seconds": record.seconds,
        "reason": record.reason,
    }
    if as_json:
        return row | {"kinds": kinds, "commands": commands}
    also = [f"{len(names)} {word}" for word, names in (("kinds", kinds), ("commands", commands)) if names]
    return row | {"components": (*components, *also)}


def _recipes() -> list[Row]:
    """Every `recipes/**/*.yaml` from here: its path, its name, and its first line of comment."""
    rows: list[Row] = []
    for path in sorted(RECIPES.rglob("*.yaml")):
        try:
            text, reason = path.read_text(encoding="utf-8"), ""
        except (OSError, UnicodeDecodeError) as error:
            text, reason = "", f"cannot be read: {error}"
        name = re.search(r"^name:\s*([^\s#]+)", text, re.MULTILINE)
        summary = re.search(r"^#+[ \t]*(\S.*)$", text, re.MULTILINE)
        rows.append(
            {
                "path": str(path),
                "name": name[1].strip("'\"") if name else path.stem,
                "summary": summary[1].strip() if summary else "",
                "reason": reason,
            }
        )
    return rows


def _verdict(catalogue: Catalogue, entry: Entry) -> str:
    from reorder_core.cli.verify import fault

    return fault(catalogue, entry)
