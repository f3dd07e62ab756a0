"""`reorder show KIND NAME`: what a component does, its settings, and for an ordering its drawing."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reorder_core.catalogue import Catalogue, Entry
from reorder_core.errors import UsageError
from reorder_core.grid import Grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


WIDTH = 100


class LearnsFromData(UsageError):
    """An ordering that has no order before it has seen images."""


def _kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [kind for kind in Catalogue.load().kinds if kind.startswith(incomplete)]


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Completions of NAME, by the kind that was typed before it."""
    catalogue = Catalogue.load()
    entries = catalogue.entries(catalogue.kind(ctx.params["kind"]).name)
    return sorted({entry.component.name for entry in entries if entry.component.name.startswith(incomplete)})


@click.command()
@click.argument("kind", shell_complete=_kinds)
@click.argument("name", shell_complete=_names)
@click.option(
    "-o", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting of the component; may be repeated."
)
@click.option("--grid", "grid_text", default="14x14", show_default=True, help="Rows x columns, for an ordering.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw the ordering into this file.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object; of an ordering: name, grid and permutation.")
def command(kind: str, name: str, overrides: tuple[str, ...], grid_text: str, png: Path | None, as_json: bool) -> None:
    """One component: what it does, where it comes from, its settings; an ordering is also drawn.

    KIND is a kind of component, as `ordering` or `backbone`; `reorder list` shows kinds and names.
    """
    catalogue = Catalogue.load()
    entry = catalogue.find(catalogue.kind(kind).name, name)
    values = read_settings(overrides)
    is_ordering = entry.component.kind == "ordering"
    if png is not None and not is_ordering:
        raise UsageError(f"--png draws orderings, and '{name}' is a {entry.component.kind}")
    if is_ordering:
        _show_ordering(catalogue, entry, values, Grid.parse(grid_text), png, as_json)
        return
    if values:  # only to read about it, nobody needs to give what is required
        catalogue.settings(entry, values)
    if as_json:
        click.echo(json.dumps(_description(catalogue, entry), indent=2))
    else:
        _write_text(_description(catalogue, entry))


def read_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """`["inward=false", "of.name=spiral"]` -> settings as a recipe would have them; values are YAML."""
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UsageError(f"-o {override}: write it as KEY=VALUE")
        import yaml

        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"-o {override}: '{text}' is no YAML value") from error
        *path, last = key.split(".")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UsageError(f"-o {override}: '{part}' was given a value of its own before")
        inner[last] = value
    return values


def _description(catalogue: Catalogue, entry: Entry) -> dict[str, Any]:
    from reorder_core.cli.describe import settings_of

    component = entry.component
    return {
        "kind": component.kind,
        "name": component.name,
        "summary": component.summary,
        "paper": component.paper,
        "plugin": entry.plugin,
        "distribution": entry.distribution,
        "version": entry.version,
        "target": component.target,
        "settings": [asdict(setting) for setting in settings_of(catalogue.settings_class(entry))],
    }


def _write_text(description: dict[str, Any]) -> None:
    click.echo(click.style(f"{description['kind']} {description['name']}", bold=True))
    click.echo(textwrap.fill(description["summary"], WIDTH))
    if description["paper"]:
        click.echo(textwrap.fill(f"Paper: {description['paper']}", WIDTH, subsequent_indent="       "))
    click.echo(f"From: {description['plugin']} ({description['distribution']} {description['version']})")
    if not description["settings"]:
        click.echo("It takes no settings.")
        return
    click.echo("\nSettings")
    for setting in description["settings"]:
        default = "required" if setting["required"] else f"default {_yaml(setting['default'])}"
        click.echo(f"  {click.style(setting['name'], bold=True)}: {setting['type']}, {default}")
        if setting["description"]:
            indent = " " * 6
            click.echo(textwrap.fill(setting["description"], WIDTH, initial_indent=indent, subsequent_indent=indent))


def _yaml(value: Any) -> str:
    """A default as one would write it in a recipe."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _show_ordering(
    catalogue: Catalogue, entry: Entry, values: dict[str, Any], grid: Grid, png: Path | None, as_json: bool
) -> None:
    description = _description(catalogue, entry)
    missing = [setting["name"] for setting in description["settings"] if setting["required"]]
    if set(missing) - set(values) and not (as_json or png):
        _write_text(description)
        click.echo(f"\nGive its settings to see it drawn: {' '.join(f'-o {name}=…' for name in missing)}")
        return
    perm_N = permutation_of(catalogue, entry, values, grid)
    if as_json:
        click.echo(json.dumps({"name": entry.component.name, "grid": str(grid), "permutation": perm_N.tolist()}))
    else:
        _write_text(description)
        click.echo()
        _draw(perm_N, grid)
    if png is not None:
        from reorder_core.drawing import draw_png

        draw_png(perm_N, grid, png, title=f"{entry.component.name} {grid}")
        click.echo(f"drawn into {png}", err=as_json)


def _draw(perm_N: NDArray[np.int64], grid: Grid) -> None:
    from reorder_core.drawing import draw_terminal

    drawing = draw_terminal(perm_N, grid)
    if isinstance(drawing, str):
        click.echo(drawing)
        return
    from rich.console import Console

    Console().print(drawing)


def permutation_of(catalogue: Catalogue, entry: Entry, values: dict[str, Any], grid: Grid) -> NDArray[np.int64]:
    """The order of an ordering on a grid, int64 [N]. Raises `UsageError` where its answer is no permutation."""
    from reorder_core.errors import ReorderError
    from reorder_core.interfaces.context import Context
    from reorder_core.permutation import validate
    from reorder_core.settings import ComponentRef

    context = Context(grid=grid, resolve=lambda ref: catalogue.build(ref, context))
    ordering = catalogue.build(ComponentRef("ordering", entry.component.name, values), context)
    if hasattr(ordering, "fit"):
        raise LearnsFromData(f"{entry} learns its order from data: it is saved in the order.json of a run")
    try:
        answer = ordering.permutation(grid)
    except ReorderError:
        raise
    except Exception as error:
        raise UsageError(f"{entry} failed on a grid of {grid}: {type(error).__name__}: {error}") from error
    order: NDArray[np.int64] = validate(answer, grid.size, f"{entry} gives no permutation of {grid}: its order")
    return order
