"""The task `captioning`: a sentence for each image, learned word by word.

B images, C channels, H W pixels, T places of a text, V pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reorder_captioning.cross_attention import CrossAttentionReader
from reorder_captioning.metrics import CaptionMetrics, words
from reorder_captioning.prefix import PrefixReader, refuse_backbone
from reorder_captioning.rouge import rouge_l
from reorder_captioning.search import search
from reorder_captioning.settings import CaptioningSettings
from reorder_captioning.vocabulary import PAD, Vocabulary, require_words
from reorder_captioning.words import Words, read_before
from reorder_core import Batch, Context, Draw, Layout, TaskResult, UsageError

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


class Said:
    """The captions that are said of a batch, found out when they are first asked for: losses need none."""

    def __init__(self, say: Callable[[], Sequence[str]]) -> None:
        self._say = say

    @cached_property
    def texts(self) -> Sequence[str]:
        """One for each image. Ask before the weights change."""
        return self._say()


class Captioning(nn.Module):
    """Cross-entropy of each piece of a caption, given the image and the pieces before it.

    Targets are tuples of texts, one tuple an image. The loss of a caption is its mean over pieces and end; the loss of
    an image is the mean over its captions, of which training draws one (`prepare`). Label smoothing counts in training
    only. The prediction is `Said`.
    """

    primary = "cider"
    higher_is_better = True
    batch_coupled = False
    score = "rouge_l"

    def __init__(self, settings: CaptioningSettings, context: Context) -> None:
        super().__init__()
        if context.data is None or context.data.target != "captions":
            raise UsageError("captioning needs data with captions: set data.target to captions")
        captions = getattr(getattr(context.dataset, "train", None), "targets", None)
        if captions is None:
            raise UsageError("captioning learns its words from the training captions: the data set must give targets()")
        self.settings = settings
        self.vocabulary = Vocabulary.learned(captions(), settings.vocabulary, settings.lower_case)
        table = Words(len(self.vocabulary), settings.max_words + 1, context.width, settings.tied, context.generator)
        self.reader: Any = (
            PrefixReader(table) if settings.reader == "prefix" else CrossAttentionReader(table, settings, context)
        )

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """One caption of each image, drawn with `generator`; the batch itself where no image has several."""
        if all(len(texts) == 1 for texts in batch.target):
            return batch
        drawn_B = torch.rand(len(batch), generator=generator).tolist()
        chosen = [(texts[int(share * len(texts))],) for texts, share in zip(batch.target, drawn_B, strict=True)]
        return replace(batch, target=chosen)

    def refuse_model(self, model: Any) -> None:
        """Raise `UsageError` where the reader cannot work with this model's backbone."""
        if self.settings.reader == "prefix":
            refuse_backbone(model.backbone)

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """The loss of each image over all its captions; in evaluation mode also what is said of it, once it is asked.

        Raises `UsageError` for an image without captions or a caption without words, and where the backbone cannot
        read words after the patches.
        """
        for image, texts in zip(batch.index_B.tolist(), batch.target, strict=True):
            require_words(texts, f"image {image}")
        seen = self.reader(run, batch.images_BCHW, order)
        return TaskResult(self._loss_B(seen, batch), Said(lambda: self._say(seen, batch.images_BCHW.device)))

    def _loss_B(self, seen: Any, batch: Batch) -> Tensor:
        """One reading for each number of a caption; an image with fewer has its first read again, with no weight."""
        device, rounds = batch.images_BCHW.device, max(len(texts) for texts in batch.target)
        loss_B = torch.zeros(len(batch), device=device)
        for number in range(rounds):
            texts = [each[number] if number < len(each) else each[0] for each in batch.target]
            weights = [1 / len(each) if number < len(each) else 0.0 for each in batch.target]
            target_BT = self.vocabulary.targets_BT(texts, self.settings.max_words + 1).to(device)
            each_B = self._caption_loss_B(seen.logits(read_before(target_BT)), target_BT)
            loss_B = loss_B + torch.tensor(weights, device=device) * each_B
        return loss_B

    def _caption_loss_B(self, logits_BTV: Tensor, target_BT: Tensor) -> Tensor:
        smoothing = self.settings.label_smoothing if self.training else 0.0
        loss_BT = cross_entropy(
            logits_BTV.transpose(1, 2), target_BT, reduction="none", ignore_index=PAD, label_smoothing=smoothing
        )
        return loss_BT.sum(dim=1) / (target_BT != PAD).sum(dim=1)

    def _say(self, seen: Any, device: torch.device) -> list[str]:
        """Greedy, or with a beam; in float32 also where losses are not."""
        if self.training:
            raise UsageError("captions are said in evaluation mode only: call eval() before step()")
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            lines = search(
                seen.speaker(), self.settings.max_words + 1, self.settings.beam, self.settings.length_penalty or 0.0
            )
        return [self.vocabulary.text(row) for row in lines.word_BT.tolist()]

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """ROUGE-L of each image's caption, float32 [B]: CIDEr weighs words by the whole split, and is no mean."""
        found = [
            rouge_l(words(said), [words(each) for each in texts])
            for said, texts in zip(result.prediction.texts, batch.target, strict=True)
        ]
        return torch.tensor(found, dtype=torch.float32, device=result.loss_B.device)

    def metrics(self) -> CaptionMetrics:
        """Fresh: cider, bleu1 … bleu4, rouge_l, exact_match, loss."""
        return CaptionMetrics()

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 16 images, with what was said and one reference; see `picture.draw_captions`."""
        from reorder_captioning.picture import draw_captions

        draw_captions(batch.images_BCHW, result.prediction.texts, batch.target, layout, path)

    def get_extra_state(self) -> dict[str, Any]:
        """The words, so that a checkpoint carries them."""
        return self.vocabulary.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Raises `UsageError` where a checkpoint was made with other words."""
        own = self.vocabulary.state()
        if state == own:
            return
        theirs, ours = set(state.get("pieces", ())), set(own["pieces"])
        sentence = (
            f"the checkpoint's words are not those of this run's training captions ({len(theirs)} pieces, of which "
            f"{len(theirs & ours)} are among this run's {len(ours)}): use the captions, task.vocabulary and "
            f"task.lower_case that it was trained with"
        )
        raise UsageError(sentence) from ValueError(sentence)
