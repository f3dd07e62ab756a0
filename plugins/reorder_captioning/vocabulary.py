"""The words of a run: pieces learned from its training captions by byte-pair encoding (Sennrich et al. 2016).

B captions, T places of a caption.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace as Joined
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace, Punctuation
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from reorder_core import UsageError

MARKS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BEGIN, END, UNKNOWN = range(4)
_SPACE = "▁"  # what Metaspace writes for the space before a word


class Vocabulary:
    """Texts to numbers of pieces and back; see `Vocabulary.learned`.

    A piece begins a word (with its space) or goes on with it; punctuation stands alone. Hugging Face `tokenizers` does
    the work. Numbers 0 … 3 are the marks pad, begin, end and unknown, which no text contains.
    """

    def __init__(self, tokenizer: Tokenizer, lower_case: bool) -> None:
        self._tokenizer, self.lower_case = tokenizer, lower_case

    @classmethod
    def learned(cls, captions: Iterable[Sequence[str]], size: int, lower_case: bool = True) -> Vocabulary:
        """At most `size` pieces, from the captions of each image in order; the same captions give the same pieces.

        Raises `UsageError` for an image without captions, a caption without words, and a size below the alphabet.
        """
        # threads that the library started would not outlive the fork of a data loader's workers
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        texts = [tidy(text, lower_case) for text in chain.from_iterable(_checked(captions))]
        if not texts:
            raise UsageError("the training split has no captions to learn words from: give it some")
        alphabet = {_SPACE}.union(*map(set, texts)) - {" "}
        if len(MARKS) + len(alphabet) > size:
            raise UsageError(
                f"task.vocabulary: {size} pieces are fewer than the {len(alphabet)} characters of the training "
                f"captions and the {len(MARKS)} marks: raise it to {len(MARKS) + len(alphabet)} at least"
            )
        tokenizer = Tokenizer(BPE(unk_token=MARKS[UNKNOWN], fuse_unk=True))
        tokenizer.pre_tokenizer = Steps([Metaspace(_SPACE), Punctuation("isolated")])
        tokenizer.decoder = Joined(_SPACE)
        trainer = BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=list(MARKS),
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.encode_special_tokens = True  # a caption that says "<pad>" says just that
        return cls(tokenizer, lower_case)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def numbers(self, text: str) -> list[int]:
        """The pieces of a text, without marks; a character that no training caption had is unknown."""
        found: list[int] = self._tokenizer.encode(tidy(text, self.lower_case)).ids
        return found

    def text(self, numbers: Iterable[int]) -> str:
        """The text of pieces; marks are left out."""
        found: str = self._tokenizer.decode([int(number) for number in numbers if number >= len(MARKS)])
        return found.strip()

    def targets_BT(self, texts: Sequence[str], length: int) -> Tensor:
        """What is to be said: pieces, the end, then padding, int64 [B, T = length]; longer ones are cut."""
        rows = [[*self.numbers(text), END][:length] for text in texts]
        return torch.tensor([[*row, *[PAD] * (length - len(row))] for row in rows], dtype=torch.int64)

    def state(self) -> dict[str, Any]:
        """Everything that makes two vocabularies the same, JSON-able."""
        pieces = self._tokenizer.get_vocab()
        merges = json.loads(self._tokenizer.to_str())["model"]["merges"]
        return {
            "lower_case": self.lower_case,
            "pieces": sorted(pieces, key=pieces.__getitem__),
            "merges": merges,
        }


def tidy(text: str, lower_case: bool) -> str:
    """One space between words, and lower case where that is wanted."""
    return " ".join((text.lower() if lower_case else text).split())


def _checked(captions: Iterable[Sequence[str]]) -> Iterable[Sequence[str]]:
    for image, texts in enumerate(captions):
        require_words(texts, f"training image {image}")
        yield texts


def require_words(texts: Sequence[str], image: str) -> None:
    """Raise `UsageError` for an image without captions, or one of whose captions has no words."""
    if not texts:
        raise UsageError(f"{image} has no caption: leave it out, or describe it")
    for number, text in enumerate(texts):
        if not text.split():
            raise UsageError(f"caption {number} of {image} has no words: leave it out, or write it")
