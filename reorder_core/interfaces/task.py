"""A task: from features to a loss for each image, a prediction, and the metrics of its field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from reorder_core.interfaces.backbone import Features
    from reorder_core.interfaces.dataset import Batch
    from reorder_core.interfaces.policy import Draw
    from reorder_core.layout import Layout


@dataclass(frozen=True, slots=True)
class TaskResult:
    """loss_B: of each image (it is the policy's reward, negated). prediction: what the metrics read."""

    loss_B: Tensor
    prediction: Any


class Run(Protocol):
    """What a task may ask of the run: one forward pass of embedding, order and backbone.

    text_BTD: tokens of a text to be read after the patches, in the same sequence. It is `reorder_core.model.Model`: a
    task that decodes word by word also finds `run.ordered(images, order)` and `run.backbone` there.
    """

    def __call__(self, images_BCHW: Tensor, order: Layout | Draw, text_BTD: Tensor | None = None) -> Features: ...


class Metrics(Protocol):
    """Sums over a split: each process updates with its own images, `compute` is over all (torchmetrics does so)."""

    def update(self, result: TaskResult, batch: Batch) -> None: ...

    def compute(self) -> Mapping[str, float]: ...

    def reset(self) -> None: ...


@runtime_checkable
class Task(Protocol):
    """A `torch.nn.Module` that holds its head's parameters.

    primary: the metric by which runs are compared; higher_is_better.
    batch_coupled: images of a batch depend on each other (contrastive losses), so losses are no rewards of one image.

    Optional: `predict(features) -> Tensor`, what an exported model answers with (the summary where it is missing);
    `score: str`, what `score_B` is called where its mean is not the primary metric (an average precision is no mean
    over images), for the table of comparisons;
    `refuse_model(model)`, called once when both are built: it raises `UsageError` where the task cannot work with this
    model (a caption that patches would see before it is said);
    `draw_prediction(batch, result, layout, path)`, which writes a PNG of some images with what was said of them and
    the order they were read in: it is called once at the end of a run, with validation images.
    """

    primary: str
    higher_is_better: bool
    batch_coupled: bool

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Batch-wise augmentation of a training batch (mixup); the batch itself where there is none."""
        ...

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """By default one pass, head, loss; two views or a teacher fit too."""
        ...

    def after_step(self, step: int) -> None:
        """Called after each optimiser step (a teacher's moving average, say)."""
        ...

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """The primary metric of each image, float32 [B] (1 or 0 for top-1): what the paired bootstrap compares."""
        ...

    def metrics(self) -> Metrics:
        """Fresh metrics for one pass over a split."""
        ...
