"""`reorder saliency RUN`: where in a run's order the salient patches stand.

Exit codes: 0; 2 for whatever is found before anything was measured; 1 for what failed later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("saliency")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(["rollout", "gradient", "occlusion"]),
    help="How saliency is measured; may be repeated. By default all that the model allows.",
)
@click.option("--images", type=click.IntRange(2), default=256, show_default=True, help="Validation images to read.")
@click.option("--per-class", is_flag=True, help="For the images of each class too.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images read at once.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True, help="Where."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The folder to write into.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON on stdout, in place of tables.")
def command(run: Path, methods: tuple[str, ...], out: Path | None, as_json: bool, **asked: Any) -> int:
    """Where in the order of a run the salient patches stand.

    RUN is the folder of a run: its trained weights, and the order it ended with.

    The saliency of each patch, averaged over validation images: by attention rollout (for models in which every patch
    looks at all), gradient x input, and occlusion. Then Spearman's rank correlation of slot and saliency, in the run's
    order, in its reverse and row by row, with a bootstrap interval over images. Above 0, what matters is read late.
    Tables on the screen; saliency.json and pictures in a folder, by default inside the run.
    """
    from reorder_saliency.study import run_study

    return run_study(run, methods, out, as_json, **asked)
