"""`reorder new KIND NAME`: an installable plugin distribution that works, with tests that pass at once."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

import click

from reorder_core.catalogue import Catalogue, import_string
from reorder_core.errors import UsageError


def _kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    kinds = Catalogue.load().kinds.values()
    return [kind.name for kind in kinds if kind.template and kind.name.startswith(incomplete)]


@click.command()
@click.argument("kind", shell_complete=_kinds)
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="The folder to write the distribution's folder into; this one by default.",
)
def command(kind: str, name: str, out: Path) -> None:
    """Write a new plugin distribution, with tests that pass.

    KIND is ordering, backbone, policy, task, dataset or a kind that a plugin added; NAME is what a recipe will write.
    """
    catalogue = Catalogue.load()
    chosen = catalogue.kind(kind)
    if chosen.template is None:
        able = [other.name for other in catalogue.kinds.values() if other.template]
        raise UsageError(f"there is no template for a {chosen.name}: there is one for {', '.join(able)}")
    _check_name(catalogue, chosen.name, name)
    template = import_string(chosen.template, f"the template of the kind '{chosen.name}'")
    folder = out / f"reorder-{name.replace('_', '-')}"
    _write(folder, template(name))
    click.echo(f"wrote {folder}")
    click.echo(f"  test it:    pytest {folder}")
    click.echo(f"  install it: pip install -e {folder}")
    click.echo(f"  see it:     reorder show {chosen.name} {name}")


def _check_name(catalogue: Catalogue, kind: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.endswith("_"):
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        advice = f", for example '{near}'" if re.fullmatch(r"[a-z][a-z0-9_]*", near) and near != name else ""
        raise UsageError(f"'{name}' is no name for the kind {kind}: use small letters, digits and underscores{advice}")
    for entry in catalogue.entries(kind):
        if entry.component.name == name:
            raise UsageError(f"there is {entry} already: choose another name")
    if find_spec(f"reorder_{name}") is not None:
        raise UsageError(f"a package reorder_{name} is installed already: choose another name")


def _write(folder: Path, files: dict[str, str]) -> None:
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name, or --out another folder")
    try:
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
