"""The data set `multilabel_csv`: images of several classes, listed in a CSV.

K classes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from reorder_annotated_data.csv_file import csv_file
from reorder_annotated_data.pipeline_settings import SplitName
from reorder_annotated_data.settings import MultilabelCsvSettings, placed
from reorder_annotated_data.split import require_files, splits
from reorder_core import Context


class CsvSource:
    """The images of a split and their classes."""

    def __init__(self, settings: MultilabelCsvSettings, split: SplitName) -> None:
        self._csv = settings.csv(split)
        self._folder = placed(settings.root, settings.images)
        self._suffix = settings.suffix
        file = csv_file(settings, split)
        self._lines, self._classes = file.lines, len(file.classes)
        named = ((self.path(index), f"{self._csv}: line {line[0]}") for index, line in enumerate(self._lines))
        require_files(named, self._folder, "images")

    def __len__(self) -> int:
        return len(self._lines)

    def path(self, index: int) -> Path:
        """The image's file."""
        return self._folder / (self._lines[index][1] + self._suffix)

    def size(self, index: int) -> None:
        """The CSV does not say."""

    def origin(self, index: int) -> str:
        """The line of the CSV."""
        return f"line {self._lines[index][0]} of {self._csv}"

    def target(self, index: int) -> Tensor:
        """float32 [K]: 1 for each of its classes."""
        seen_K = torch.zeros(self._classes)
        seen_K[list(self._lines[index][2])] = 1.0
        return seen_K


class MultilabelCsv:
    """Raises `UsageError` for what is wrong in the CSVs, and for missing images."""

    in_memory = False

    def __init__(self, settings: MultilabelCsvSettings, context: Context) -> None:
        self.facts = settings.describe()
        self.classes = csv_file(settings, "train").classes
        self.train, self.validation = splits(
            settings, context, CsvSource(settings, "train"), CsvSource(settings, "validation")
        )
