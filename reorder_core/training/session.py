"""One command: the main run of a recipe, then its controls, then the table that sets them side by side."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from reorder_core.errors import ReorderError, RunError, UsageError
from reorder_core.interfaces.dataset import Dataset
from reorder_core.training.build import Parts, build_dataset, build_parts
from reorder_core.training.checkpoint import Checkpoints, take_trained
from reorder_core.training.controls import Controls, Job, main_job
from reorder_core.training.evaluate import Validation
from reorder_core.training.folder import new_folder, newest_folder, write_head, write_order
from reorder_core.training.journal import Journal
from reorder_core.training.loader import training_batches
from reorder_core.training.loop import Surroundings, evaluate_split, train
from reorder_core.training.pictures import draw_pictures
from reorder_core.training.predictions import draw_predictions
from reorder_core.training.progress import Progress
from reorder_core.training.report import RunResult, print_closing
from reorder_core.training.step import train_step
from reorder_core.training.stopping import StopRequest
from reorder_core.training.trainer import Trainer

if TYPE_CHECKING:
    from reorder_core.catalogue import Catalogue
    from reorder_core.recipe import Recipe


@dataclass
class Session:
    """Everything that the runs of one command share: the recipe, the data set, the devices, the screen."""

    recipe: Recipe
    catalogue: Catalogue
    accelerator: Accelerator
    dataset: Dataset
    progress: Progress
    stop: StopRequest
    weights_from: Path | None = None

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        catalogue: Catalogue,
        accelerator: Accelerator,
        progress: Progress,
        stop: StopRequest,
        weights_from: Path | None = None,
    ) -> Session:
        """weights_from: the folder of a run whose trained model and task every run starts from."""
        progress.message(f"data: {recipe.data.ref.name}")
        dataset = build_dataset(recipe, catalogue)
        return cls(recipe, catalogue, accelerator, dataset, progress, stop, weights_from)

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def run(self, out: Path, resume: bool) -> list[RunResult]:
        """Run, or continue, everything; returns the results, the main run's first."""
        self._controls.check()
        folder = self._folder(out, resume)
        self.progress.message(f"run folder: {folder}")
        try:
            main = self._run_job(main_job(self.recipe, folder), resume)
        except UsageError:
            if self.is_main and not any(folder.iterdir()):  # found before anything was written
                folder.rmdir()
            raise
        return [main, *(self._run_job(job, resume) for job in self._controls.jobs(folder, main.order))]

    def conclude(self, results: list[RunResult]) -> None:
        """The table, the comparison and the pictures, once the display is gone."""
        if not self.is_main:
            return
        main, *controls = results

        def finish() -> None:
            print_closing(main, controls, self.progress.console)
            for result in results:
                draw_pictures(result.folder)

        _write(main.folder, finish)

    def dry_run(self) -> None:
        """Build everything, take one training step (of the policy, where there is one) and one validation step."""
        for job in [main_job(self.recipe, Path()), *self._controls.jobs(Path(), None)]:
            parts = self._parts(job)
            t = Trainer.make(parts, self.accelerator, {}, self.recipe.policy is not None)
            t.step = t.table.learn_start if t.table.has_policy else 0
            with_end = min(t.step + 1, t.table.total)
            for batch, index_B in training_batches(parts.dataset, t.plan, with_end - 1, with_end):
                result = train_step(t, batch, index_B)
                found = evaluate_split(t, stop_after=1)
                self.progress.message(
                    f"{job.name}: one training step (loss {result.loss:.4f}) "
                    f"and one validation step (loss {found.metrics['loss']:.4f}) work"
                )
            self.accelerator.free_memory()

    @property
    def _controls(self) -> Controls:
        return Controls(self.recipe, self.catalogue, self.dataset)

    def _folder(self, out: Path, resume: bool) -> Path:
        """The run folder, chosen by the first process and told to the others; an error is told as well."""
        told: list[Any] = [None]
        if self.is_main:
            try:
                told = [newest_folder(out, self.recipe) if resume else new_folder(out, self.recipe)]
            except Exception as error:
                told = [error]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(told)
        if isinstance(told[0], Exception):
            raise told[0]
        return Path(told[0])

    def _parts(self, job: Job) -> Parts:
        try:
            parts = build_parts(job.recipe, self.catalogue, self.dataset, job.order_from, job.order_name)
        except RunError as error:  # an image that cannot be read, say: still before the first step
            raise UsageError(str(error)) from error
        if self.weights_from is not None:
            take_trained(parts.learner, self.weights_from)
        return parts

    def _run_job(self, job: Job, resume: bool) -> RunResult:
        """Run a job, or continue it, or read its result where it is finished."""
        if resume and (job.folder / "result.json").exists():
            self.progress.message(f"{job.name} is finished: {job.folder}")
            return RunResult.load(job.folder)
        parts = self._parts(job)
        t = Trainer.make(parts, self.accelerator, self._identity(job, parts), self.recipe.policy is not None)
        checkpoints = Checkpoints(job.folder / "checkpoints", job.recipe.training.checkpoint.keep)
        length = self._restore(t, job, checkpoints) if resume else 0
        if self.is_main and not (job.folder / "environment.json").exists():
            _write(
                job.folder,
                lambda: write_head(job.folder, job.recipe, str(self.accelerator.device), t.plan.shares.processes),
            )
        self.accelerator.wait_for_everyone()
        self.progress.start(t.table.total, t.table.steps_per_epoch, job.name, first_step=t.step)
        with Journal(job.folder if self.is_main else None, length, t.step) as journal:
            around = Surroundings(journal, self.progress, checkpoints if self.is_main else None, self.stop)
            found = self._train(t, around)
        self.progress.finish()
        result = self._result(job, t, found)
        if self.is_main:
            _write(job.folder, lambda: self._save(job, t, result))
            if why := draw_predictions(t, job.folder):
                self.progress.message(f"{job.name}: no picture of predictions ({why}); the run itself is saved")
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()
        return result

    def _train(self, t: Trainer, around: Surroundings) -> Validation:
        """Train; whatever goes wrong from here on is a run that failed (exit code 1), not a recipe that is wrong."""
        try:
            return train(t, around)
        except RunError:
            raise
        except ReorderError as error:
            raise RunError(str(error)) from error

    def _restore(self, t: Trainer, job: Job, checkpoints: Checkpoints) -> int:
        snapshot, refused = checkpoints.load_newest()
        for older, sentence in zip(range(len(refused) - 1, -1, -1), refused, strict=True):
            left = "the one before it is tried" if older or snapshot is not None else "there is none before it"
            self.progress.message(f"{sentence}; {left}")
        if snapshot is None:
            why = "no whole checkpoint" if refused else "no checkpoint yet"
            self.progress.message(f"{job.name}: {why}, starts at step 0 of {t.table.total}")
            return 0
        length = t.restore(snapshot)
        self.progress.message(f"{job.name}: resumed at step {t.step} of {t.table.total} ({job.folder})")
        return length

    def _identity(self, job: Job, parts: Parts) -> dict[str, Any]:
        """What a checkpoint must have been made with, to go on from it."""
        return {
            "recipe": job.recipe.fingerprint()[:16],
            "order": hashlib.sha256(parts.order_N.tobytes()).hexdigest()[:16],
            "processes": self.accelerator.num_processes,
            **({} if self.weights_from is None else {"weights_from": str(self.weights_from)}),
        }

    def _result(self, job: Job, t: Trainer, found: Validation) -> RunResult:
        task, images = t.learner.task, t.step * t.plan.global_batch
        return RunResult(
            name=job.name,
            order=t.best_order().numpy(),
            metrics=found.metrics,
            score_B=found.score_S,
            seconds=t.seconds,
            folder=job.folder,
            images_per_second=images / max(t.train_seconds, 1e-9),
            primary=task.primary,
            higher_is_better=task.higher_is_better,
            steps=t.step,
            score=getattr(task, "score", task.primary),
        )

    def _save(self, job: Job, t: Trainer, result: RunResult) -> None:
        """`order.json`, `scores.npy` and last `result.json`, which says that the run is finished."""
        policy = job.recipe.policy
        write_order(
            job.folder,
            result.order,
            t.parts.grid,
            job.recipe.name if policy is not None else t.parts.order_name,
            run=job.name,
            recipe=job.recipe.fingerprint(),
            seed=job.recipe.seed,
            policy=None if policy is None else policy.ref.name,
            initial_order=t.parts.order_name,
            steps=t.step,
            **_further(t),
        )
        result.save()


def _further(t: Trainer) -> dict[str, Any]:
    """The orders that the backbone read besides, for `order.json`; nothing where it read one."""
    further_RN = t.learner.model.further_RN
    return {} if further_RN is None else {"further_orders": further_RN.tolist()}


def _write(folder: Path, action: Any) -> None:
    try:
        action()
    except OSError as error:
        raise RunError(
            f"{folder} could not be written ({error.strerror}): make room, then go on with --resume"
        ) from error
