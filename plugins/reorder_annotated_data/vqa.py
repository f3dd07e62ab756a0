"""The data set `vqa`: questions about images and what people answered (Goyal et al. 2017, arXiv 1612.00837)."""

from __future__ import annotations

from pathlib import Path

from reorder_annotated_data.pipeline_settings import SplitName
from reorder_annotated_data.settings import VqaSettings
from reorder_annotated_data.split import require_files, splits
from reorder_annotated_data.vqa_file import vqa_file
from reorder_core import Context
from reorder_core.interfaces.targets import Question


class VqaSource:
    """The questions of a split; each comes with its image."""

    def __init__(self, settings: VqaSettings, split: SplitName) -> None:
        self._asked = vqa_file(settings, split)
        self._folder = settings.path(split, "images")
        self._pattern = settings.pattern(split)
        questions = settings.path(split, "questions")
        named = (
            (self.path(index), f"{questions}: question {asked.question.name}")
            for index, asked in enumerate(self._asked)
        )
        require_files(named, self._folder, f"{split}_images")

    def __len__(self) -> int:
        return len(self._asked)

    def path(self, index: int) -> Path:
        """The file of the image that is asked about."""
        return self._folder / self._pattern.format(id=self._asked[index].image)

    def size(self, index: int) -> None:
        """The files do not say."""

    def origin(self, index: int) -> str:
        """The question's id."""
        return f"question {self._asked[index].question.name}"

    def target(self, index: int) -> Question:
        """The question and its answers."""
        return self._asked[index].question


class Vqa:
    """Raises `UsageError` for what is wrong in the JSON files, and for missing images."""

    in_memory = False
    classes: tuple[str, ...] = ()

    def __init__(self, settings: VqaSettings, context: Context) -> None:
        self.facts = settings.describe()
        self.train, self.validation = splits(
            settings, context, VqaSource(settings, "train"), VqaSource(settings, "validation")
        )
