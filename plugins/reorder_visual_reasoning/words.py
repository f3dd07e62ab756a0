"""The words of questions and the numbers that stand for them, learned from the training questions.

B questions, T tokens of a question.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

_PADDING, _UNKNOWN = "<pad>", "<unk>"


class Words:
    """A tokenizer trained on texts, by Hugging Face `tokenizers`: lower case, split at spaces and punctuation.

    `encode` always gives T tokens, so that no question's loss depends on how long the others of its batch are: shorter
    ones are padded on the left, with a word of its own, so that the last token is the question's last.
    """

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    @classmethod
    def trained(cls, texts: Sequence[str], kind: Literal["word", "bpe"], vocabulary: int, length: int | None) -> Words:
        """The same texts give the same words. length: T; None: of the longest text."""
        special = [_PADDING, _UNKNOWN]
        trainer: trainers.Trainer
        if kind == "word":
            tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
            trainer = trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
        else:
            tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
            trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        with _in_one_thread():
            tokenizer.train_from_iterator(texts, trainer)
        longest = max((len(tokenizer.encode(text).ids) for text in set(texts)), default=1)
        return cls(tokenizer, length or max(1, longest))

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: Iterable[str]) -> Tensor:
        """int64 [B, T]: 0 is padding, 1 an unknown word; of a longer text the first T tokens."""
        rows = []
        for text in texts:
            ids = self.tokenizer.encode(text).ids[: self.length]
            rows.append([0] * (self.length - len(ids)) + ids)
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, self.length)

    def as_text(self) -> str:
        """The whole tokenizer as JSON, which is the same for the same words."""
        return str(self.tokenizer.to_str())


@contextmanager
def _in_one_thread() -> Iterator[None]:
    """Training must leave no threads behind: data loaders fork, and a tokenizer would warn in each of them."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
