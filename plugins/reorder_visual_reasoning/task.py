"""The task `visual_reasoning`: a question and an image to one of the known answers.

B images, each with its question, C channels, H W pixels, T tokens of a question, D width, K answers that can be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from reorder_core import Batch, Context, Draw, Layout, TaskResult, UsageError, seeded, uneven_heads
from reorder_core.interfaces.targets import Question
from reorder_visual_reasoning.answers import Answers
from reorder_visual_reasoning.metrics import AccuracyByKind
from reorder_visual_reasoning.readers import CrossAttentionReader, SuffixReader, refuse_without_text
from reorder_visual_reasoning.settings import VisualReasoningSettings
from reorder_visual_reasoning.words import Words

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


class VisualReasoning(nn.Module):
    """Visual question answering as classification over the frequent answers (Antol et al. 2015, arXiv 1505.00468).

    Words and answers are learned from the training questions, and kept in the checkpoint. With cross-entropy there is
    one class besides the known answers, for whatever cannot be given; it is never the prediction. With `soft` each
    answer is judged by itself (Teney et al. 2018, arXiv 1708.02711, section 3.3), and the loss is their sum.
    The prediction is the logits of the known answers, float32 [B, K].
    """

    primary = "accuracy"
    higher_is_better = True
    batch_coupled = False

    def __init__(self, settings: VisualReasoningSettings, context: Context) -> None:
        super().__init__()
        questions = training_questions(context)
        self.settings = settings
        self.words = Words.trained(
            [question.text for question in questions], settings.words, settings.vocabulary, settings.length
        )
        self.answers = Answers.of(questions, settings.answers)
        with seeded(context.generator):
            self.reader = _reader(settings, len(self.words), self.words.length, context.width)
            outputs = len(self.answers) + (settings.loss == "cross_entropy")
            self.dropout = nn.Dropout(settings.dropout)
            self.head = nn.Linear(self.reader.width, outputs)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def refuse_model(self, model: Any) -> None:
        """Raise `UsageError` where the reader cannot work with this model's backbone."""
        if isinstance(self.reader, SuffixReader):
            refuse_without_text(model.backbone)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch itself."""
        return batch

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """Question and image read together, and the loss of the answer to each."""
        ids_BT = self.words.encode(question.text for question in batch.target).to(batch.images_BCHW.device)
        understood_BD = self.reader(run, batch.images_BCHW, order, ids_BT)
        logits = self.head(self.dropout(understood_BD)).float()
        return TaskResult(self._loss_B(logits, batch.target), logits[:, : len(self.answers)])

    def _loss_B(self, logits: Tensor, questions: Sequence[Question]) -> Tensor:
        if self.settings.loss == "cross_entropy":
            return cross_entropy(logits, self.answers.class_B(questions).to(logits.device), reduction="none")
        right_BK = self.answers.right_BK(questions).to(logits.device)
        return binary_cross_entropy_with_logits(logits, right_BK, reduction="none").sum(dim=1)

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """The accuracy of each answer, float32 [B]; see `answers.credit`."""
        right_BK = self.answers.right_BK(batch.target).to(result.prediction.device)
        return right_BK.gather(1, result.prediction.argmax(dim=1, keepdim=True))[:, 0]

    def metrics(self) -> AccuracyByKind:
        """Fresh: `accuracy`, `accuracy_<kind>` for each kind of question, `loss`."""
        return AccuracyByKind(self.score_B)

    def said(self, result: TaskResult) -> list[str]:
        """The likeliest answers, in words."""
        return [self.answers.known[number] for number in result.prediction.argmax(dim=1).tolist()]

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 16 images with question, what was said and what is true; see `picture.draw_prediction`."""
        from reorder_visual_reasoning.picture import draw_prediction

        draw_prediction(batch, self.said(result), self.score_B(result, batch), layout, path)

    def get_extra_state(self) -> dict[str, Any]:
        """Words and answers, JSON-able: a checkpoint's numbers mean nothing without them."""
        return {"words": self.words.as_text(), "length": self.words.length, "answers": list(self.answers.known)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Raises `UsageError` where the checkpoint was trained with other words or answers."""
        own = self.get_extra_state()
        other = [name for name in own if state.get(name) != own[name]]
        if other:
            said = (
                f"the checkpoint was trained with other {' and '.join(other)} than this data's training questions "
                f"give: use the data and the task's settings that it was trained with"
            )
            raise UsageError(said) from ValueError(said)  # the cause is what a run that is opened tells


def training_questions(context: Context) -> list[Question]:
    """Those of the training split. Raises `UsageError` for data without any."""
    target = None if context.data is None else context.data.target
    split: Any = getattr(context.dataset, "train", None)
    if target != "questions" or not hasattr(split, "targets"):
        raise UsageError(
            "visual_reasoning needs data with questions, whose training split lists them: set data.target to questions"
        )
    questions: list[Question] = list(split.targets())
    if not any(question.answers for question in questions):
        raise UsageError("visual_reasoning learns from answers, and no training question has any: add them to the data")
    return questions


def _reader(
    settings: VisualReasoningSettings, words: int, length: int, width: int
) -> SuffixReader | CrossAttentionReader:
    if settings.reader == "suffix":
        return SuffixReader(words, length, width)
    own = settings.width or width
    if said := uneven_heads(own, settings.heads):
        raise UsageError(f"task.heads: {said}")
    return CrossAttentionReader(words, length, width, own, settings.depth, settings.heads, settings.mlp_ratio)
