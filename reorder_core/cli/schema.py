"""`reorder schema`: the JSON Schema of recipes, with the settings of every installed plugin."""

from __future__ import annotations

from pathlib import Path

import click

from reorder_core.errors import UsageError


@click.command("schema")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it to this file instead of printing it.",
)
def command(out: Path | None) -> None:
    """JSON Schema of recipes, for editors.

    An editor with a YAML language server completes and checks recipes by it: put
    `# yaml-language-server: $schema=recipe.schema.json` at the top of a recipe.
    """
    import json

    from reorder_core.catalogue import Catalogue
    from reorder_core.recipe_schema import recipe_schema

    text = json.dumps(recipe_schema(Catalogue.load()), indent=2, ensure_ascii=False)
    if out is None:
        click.echo(text)
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}): choose another --out") from error
    click.echo(f"wrote {out}")
