"""Running a recipe from beginning to end: what `reorder run` does, and commands of rooms that train on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reorder_core.errors import ReorderError

if TYPE_CHECKING:
    from reorder_core.recipe import Recipe
    from reorder_core.training.report import RunResult

Device = Literal["auto", "cpu", "cuda", "mps"]


class Stopped(ReorderError):
    """The user stopped the run (Ctrl-C), and it is saved: `reorder run --resume` goes on. Exit code 130."""

    exit_code = 130


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: Device = "auto",
    weights_from: Path | None = None,
    dry_run: bool = False,
    closing: bool = True,
) -> list[RunResult]:
    """Run a recipe and its controls with progress display and checkpoints; the results, the main run's first.

    out: the folder of all runs; this one's is `out/<name>/<id>/`. resume: go on with the newest run of this recipe
    there. weights_from: the folder of a run whose trained model and task are started from, in place of fresh weights.
    dry_run: build everything, take one step, write nothing. closing: show the table and draw the pictures at the end.
    Raises `Stopped` after Ctrl-C (without `closing` also where the run came to its end all the same), `UsageError` for
    what is found before the first step, `RunError` for what does later.
    """
    wait_politely()
    from reorder_core.catalogue import Catalogue
    from reorder_core.training.devices import make_accelerator
    from reorder_core.training.progress import Progress
    from reorder_core.training.session import Session
    from reorder_core.training.stopping import Interrupted, StopRequest

    accelerator = make_accelerator(device, recipe.training.precision)
    progress = Progress(runs=1 + len(recipe.controls), enabled=accelerator.is_main_process)
    stop = StopRequest(lambda: progress.message("stopping: saving first (again to stop at once)"))
    try:
        with stop, progress:
            session = Session.open(recipe, Catalogue.load(), accelerator, progress, stop, weights_from)
            if dry_run:
                session.dry_run()
                return []
            results = session.run(out, resume)
        if closing:
            session.conclude(results)
        elif stop.requested:  # in the last step: the run is whole, but whoever would begin the next one is to hear it
            raise Stopped("stopped after the last step: the run is finished and saved")
        return results
    except Interrupted as error:
        progress.message(str(error))
        raise Stopped(str(error)) from error
    finally:
        accelerator.end_training()


def wait_politely() -> None:
    """Let OpenMP threads that wait for each other sleep after some microseconds instead of spinning.

    Small models meet at hundreds of barriers a step. Where another program holds a core, a spinning thread takes the
    time that the awaited one needs: a step of the smoke recipe then took 1.2 s instead of 0.02 s. To be set before
    torch is loaded; whoever has set it, or OMP_WAIT_POLICY, knows better.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
