"""A forward pass that stands between two blocks: what `SequenceModel.advance` goes on with.

B images, N patches, S special tokens, T tokens of a text, L = N + S + T, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from reorder_core.layout import Layout


@dataclass(frozen=True, slots=True)
class Reading:
    """To be gone on with: by `SequenceModel.advance`, then `finish`.

    done: blocks that are done. tokens_BLD: the whole sequence, special tokens and text in it. layouts: how it stands,
    without special tokens. exits: the summaries read so far. text: T, how many of the last tokens are a text's.
    """

    done: int
    tokens_BLD: Tensor
    layouts: tuple[Layout, ...]
    exits: tuple[Tensor, ...] = ()
    text: int = 0

    def part(self, images: Tensor | slice) -> Reading:
        """The same for a part of its images (a slice, or numbers or a mask): what an early exit leaves to be read."""
        layouts = tuple(layout.part(images) for layout in self.layouts)
        return replace(
            self,
            tokens_BLD=self.tokens_BLD[images],
            layouts=layouts,
            exits=tuple(exit_BD[images] for exit_BD in self.exits),
        )
