"""`reorder export TARGET`: a model with its order baked in, as a file of torch.export or ONNX.

Exit codes: 0; 2 for bad input; 1 where the model cannot be exported, or answers differently when it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from reorder_core.errors import UsageError

_ENDINGS = {"torch": ".pt2", "onnx": ".onnx"}


@click.command("export")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["torch", "onnx"]), default="torch", show_default=True, help="The format.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of a recipe.")
@click.option("--batch", type=click.IntRange(1), help="Exactly this many images at once; left out: any number.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file; by default beside the run.")
def command(
    target: Path, to: Literal["torch", "onnx"], overrides: tuple[str, ...], batch: int | None, out: Path | None
) -> None:
    """Export a model with its order baked in.

    TARGET is the folder of a run (its trained weights, the order it ended with) or a recipe (fresh weights). The file
    takes images [B, C, H, W], normalised as the data set gives them, and answers with the task's prediction; whoever
    loads it needs neither the order nor this package. Its answers are compared with the model's before it is kept.
    """
    if not target.exists():
        raise UsageError(f"{target}: there is no such recipe or run")
    if out is not None and out.suffix != _ENDINGS[to]:
        raise UsageError(f"--out {out}: a file of this format ends in {_ENDINGS[to]}")
    from reorder_core.export import export
    from reorder_core.opened import open_target

    opened = open_target(target, overrides, "cpu")
    folder = target if target.is_dir() else Path()
    path = out or folder / f"{opened.recipe.name}{_ENDINGS[to]}"
    found = export(opened, path, to, batch)
    images = "any number of" if batch is None else str(batch)
    click.echo(
        f"{found.path}: {images} images to {list(found.outputs)}, in the order {opened.order_name}; "
        f"differs from the model by {found.difference:.1e}"
    )
    if opened.recipe.policy is not None and getattr(opened.recipe.policy.settings, "reads_images", False):
        click.echo(
            f"note: the policy '{opened.recipe.policy.name}' gave each image an order of its own, and the run "
            f"was rated so; the exported model reads all images in one, their mean order, in which it was not rated"
        )
