"""`reorder run RECIPE`: the main run, then its controls, then the table.

Exit codes: 0; 2 for whatever is found before the first step; 1 for a run that failed later; 130 after Ctrl-C (saved).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from reorder_core.errors import ReorderError


@click.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting, e.g. policy.temperature=0.5; policy=null takes the policy away.",
)
@click.option("--resume", is_flag=True, help="Continue the newest run of this recipe under --out.")
@click.option(
    "--dry-run", is_flag=True, help="Build everything, take one training and one validation step, write nothing."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="The folder of all runs.",
)
def command(recipe: Path, overrides: tuple[str, ...], resume: bool, dry_run: bool, device: str, out: Path) -> int:
    """Run a recipe, with its controls.

    Ctrl-C once saves and stops; --resume goes on from there. Twice stops at once.
    """
    first = os.environ.get("RANK", "0") == "0"  # as torchrun and accelerate launch say it
    try:
        return _run(recipe, overrides, resume, dry_run, device, out, first)
    except ReorderError as error:
        if first or error.exit_code != 2:
            raise
        return error.exit_code  # every process found the same mistake: the first one says it


def _run(
    path: Path, overrides: tuple[str, ...], resume: bool, dry_run: bool, device: str, out: Path, first: bool
) -> int:
    from reorder_core.catalogue import Catalogue
    from reorder_core.recipe import load_recipe

    catalogue = Catalogue.load()
    recipe = load_recipe(path, overrides, catalogue)
    if first:
        print(f"{recipe.name}: loading torch …" if _speaks_unicode() else f"{recipe.name}: loading torch", flush=True)

    from reorder_core.running import Stopped, run_recipe

    try:
        run_recipe(recipe, out, resume=resume, device=device, dry_run=dry_run)  # type: ignore[arg-type]
    except Stopped as stopped:
        return stopped.exit_code
    return 0


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")
