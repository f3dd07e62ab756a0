"""`reorder check RECIPE…`: is it right? Without torch, without building anything, every error at once.

Exit codes: 0 when all are right, 2 when any is not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from reorder_core.recipe import Recipe, RecipeError, load_recipe


@click.command("check")
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECIPE...")
@click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Check with this setting changed, as `reorder run` takes it.",
)
@click.option("--json", "as_json", is_flag=True, help="A list of objects, with the resolved recipes.")
def command(recipes: Sequence[Path], overrides: Sequence[str], as_json: bool) -> int:
    """Check recipes without running them.

    One line for each recipe that is right; every error of the others on stderr, as path:line: key: advice.
    """
    found = [_check(path, overrides) for path in recipes]
    if as_json:
        click.echo(json.dumps([_row(path, result) for path, result in zip(recipes, found, strict=True)], indent=2))
    else:
        for path, result in zip(recipes, found, strict=True):
            if isinstance(result, Recipe):
                click.echo(f"{_tick()} {path}: {describe(result)}")
            else:
                click.echo(str(result), err=True)
    return 2 if any(isinstance(result, RecipeError) for result in found) else 0


def describe(recipe: Recipe) -> str:
    """What a recipe is about, on one line: data, grid, parts, steps."""
    data, grid = recipe.facts.data, recipe.facts.grid
    further = "".join(f", and {part.name}" for part in recipe.further_orderings)
    order = f"{recipe.backbone.name} in the order {recipe.ordering.name}{further}"
    if recipe.policy is not None:
        order = f"{recipe.backbone.name} with {recipe.policy.name} from {_prior(recipe)}{further}"
    images = "" if data.train is None else f"{data.train:,} images of "
    parts = [
        f"{recipe.data.name}: {images}{data.height}x{data.width}x{data.channels}",
        f"{grid} = {grid.size} patches",
        order,
        _length(recipe),
    ]
    if recipe.controls:
        parts.append(f"controls {', '.join(control.name for control in recipe.controls)}")
    return "; ".join(parts)


def _prior(recipe: Recipe) -> str:
    prior = getattr(recipe.policy.settings, "prior", None) if recipe.policy else None
    return recipe.ordering.name if prior is None else str(prior.name)


def _length(recipe: Recipe) -> str:
    training, steps = recipe.training, recipe.steps_per_epoch
    epochs = f"{training.epochs} {'epoch' if training.epochs == 1 else 'epochs'}"
    batch = f"batches of {training.batch_size}"
    return f"{epochs} in {batch}" if steps is None else f"{epochs} = {training.epochs * steps:,} steps in {batch}"


def _row(path: Path, result: Recipe | RecipeError) -> dict[str, Any]:
    if isinstance(result, RecipeError):
        return {"path": str(path), "ok": False, "errors": list(result.lines)}
    return {
        "path": str(path),
        "ok": True,
        "errors": [],
        "summary": describe(result),
        "grid": [result.facts.grid.rows, result.facts.grid.columns],
        "steps_per_epoch": result.steps_per_epoch,
        "fingerprint": result.fingerprint(),
        "recipe": result.resolved(),
    }


def _check(path: Path, overrides: Sequence[str]) -> Recipe | RecipeError:
    try:
        return load_recipe(path, overrides)
    except RecipeError as error:
        return error


def _tick() -> str:
    return "✓" if (sys.stdout.encoding or "").lower().startswith("utf") else "ok"
