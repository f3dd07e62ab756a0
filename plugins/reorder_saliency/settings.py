"""Settings of the ordering `saliency`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from reorder_core import DataFacts, Grid, Problem, ReorderError, RunFacts, Settings


class SaliencySettings(Settings):
    """Patches by their importance."""

    source: Literal["rollout", "gradient", "occlusion", "variance"]
    """what importance is: attention rollout (of a vision transformer), gradient x input, or occlusion, of the model of
    `run`; or the variance over the training images, which needs no model"""
    run: Path | None = None
    """folder of a finished run, from the working directory: `runs/<name>/<id>`; for every source but `variance`"""
    direction: Literal["ascending", "descending"] = "ascending"
    """ascending: what matters most is read last; descending: it is read first"""
    images: int = Field(default=256, ge=2)
    """how many training images are looked at, of those that a run shows its orderings (at most 1,024)"""

    @model_validator(mode="after")
    def _run_where_it_is_needed(self) -> SaliencySettings:
        if self.source == "variance" and self.run is not None:
            raise ValueError("run: the source 'variance' looks at no model: leave run out")
        if self.source != "variance" and self.run is None:
            raise ValueError(f"run: the source '{self.source}' needs the folder of a finished run")
        return self

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """Reads the run's recipe, so that a run on other images or another grid, or one that is not finished, is found
        before anything starts. Whether its model has the attention that `rollout` follows shows when it is built.
        """
        if self.run is None:
            return
        try:
            unfit = misfit(self.run, facts.grid, facts.data)
        except ReorderError as error:
            unfit = str(error)
        if unfit:
            yield Problem("run", unfit)


def misfit(run: Path, grid: Grid, data: DataFacts) -> str:
    """Why the model of a run cannot read these images cut into this grid, in a sentence; empty where it can.

    Raises `UsageError` where there is no finished run, and `RecipeError` where its recipe does not stand.
    """
    from reorder_core.finished import finished_recipe

    known = finished_recipe(run).facts
    if not (run / "result.json").is_file():
        return f"the run {run} is not finished: continue it with `reorder run … --resume`, or choose another"
    if not any(run.glob("checkpoints/step-*/manifest.json")):
        return f"the run {run} holds no checkpoint, and so no weights: choose a run that kept its checkpoints"
    if known.grid != grid:
        return f"the run {run} has a grid of {known.grid}, and this one has {grid}: choose a run with the same grid"
    there, here = ((each.height, each.width, each.channels) for each in (known.data, data))
    if there != here:
        return (
            f"the run {run} reads images of {'x'.join(map(str, there))} (height, width, channels), and these are "
            f"{'x'.join(map(str, here))}: choose a run on such images"
        )
    return ""
